#include "client/ctl/attack_processes.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>

namespace kvasir::ctl {
namespace {

// A change of user clears what prctl() has set, so that comes last.
absl::Status Become(uint32_t uid) {
  const passwd* const entry = ::getpwuid(uid);
  const gid_t gid = entry != nullptr ? entry->pw_gid : uid;
  if (::setgroups(0, nullptr) != 0) return ErrnoStatus(errno, "setgroups");
  if (::setresgid(gid, gid, gid) != 0) return ErrnoStatus(errno, "setresgid");
  if (::setresuid(uid, uid, uid) != 0) return ErrnoStatus(errno, "setresuid");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrnoStatus(errno, "no_new_privs");
  // As a process that was started under this user: else the kernel would keep others from it for
  // having been root's.
  if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return ErrnoStatus(errno, "dumpable");
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return ErrnoStatus(errno, "pdeathsig");
  return absl::OkStatus();
}

}  // namespace

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
}

void WriteAll(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t sent = ::write(fd, text.data() + at, text.size() - at);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;
    at += static_cast<size_t>(sent);
  }
}

absl::StatusOr<UserProcess> UserProcess::Start(uint32_t uid, const Role& role) {
  std::array<int, 2> in{}, out{};
  if (::pipe2(in.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  UserProcess process;
  UniqueFd child_in(in[0]);
  process.in_ = UniqueFd(in[1]);
  if (::pipe2(out.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  process.out_ = UniqueFd(out[0]);
  UniqueFd child_out(out[1]);
  process.pid_ = ::fork();
  if (process.pid_ < 0) return ErrnoStatus(errno, "fork");
  if (process.pid_ == 0) {
    process.in_.reset();
    process.out_.reset();
    ::signal(SIGPIPE, SIG_IGN);
    const absl::Status status = Become(uid);
    if (status.ok()) {
      role(child_in.get(), child_out.get());
    } else {
      WriteAll(child_out.get(), "error=" + MessageOf(status) + "\n");
    }
    ::_exit(0);
  }
  return process;
}

UserProcess::~UserProcess() {
  if (!out_) return;  // moved from
  (void)::kill(pid_, SIGKILL);
  (void)::waitpid(pid_, nullptr, 0);
}

absl::Status UserProcess::Tell(const std::string& text) {
  WriteAll(in_.get(), text);
  in_.reset();
  return absl::OkStatus();
}

absl::StatusOr<std::string> UserProcess::Hear(Instant deadline) {
  std::array<char, 4096> buffer;
  for (;;) {
    const size_t end = rest_.find("\n\n");
    if (end != std::string::npos) {
      std::string text = rest_.substr(0, end + 1);
      rest_.erase(0, end + 2);
      return text;
    }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - SystemClock().Now()).count();
    if (left <= 0) return DeadlineExceeded("a process of the attack does not answer");
    KVASIR_ASSIGN_OR_RETURN(const bool readable, WaitReadable(out_.get(), static_cast<int>(left)));
    if (!readable) continue;
    const ssize_t got = ::read(out_.get(), buffer.data(), buffer.size());
    if (got > 0) {
      rest_.append(buffer.data(), static_cast<size_t>(got));
    } else if (got == 0 || errno != EINTR) {
      if (rest_.empty()) return Unavailable("a process of the attack has ended without a word");
      return std::exchange(rest_, "");
    }
  }
}

}  // namespace kvasir::ctl
