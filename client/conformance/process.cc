#include "client/conformance/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <poll.h>

namespace kvasir::conformance {
namespace {

constexpr size_t kLineBytesMax = size_t{64} << 20;
constexpr Milliseconds kBetweenLooks{2};

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

int LeftMs(Instant deadline) {
  const auto left = std::chrono::ceil<Milliseconds>(deadline - SystemClock().Now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
}

// Between fork and exec: only what is safe in a child of a program with threads.
[[noreturn]] void Become(char* const* argv, char* const* environment, int in, int out, int errors) {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  (void)::setpgid(0, 0);
  (void)::signal(SIGPIPE, SIG_DFL);
  const bool ready = ::dup2(in, STDIN_FILENO) >= 0 && ::dup2(out, STDOUT_FILENO) >= 0 &&
                     ::dup2(errors, STDERR_FILENO) >= 0;
  if (ready) ::execve(argv[0], argv, environment);
  ::_exit(127);
}

}  // namespace

absl::StatusOr<Process> Process::Start(const std::vector<std::string>& argv,
                                       const std::vector<std::string>& environment,
                                       const std::string& log) {
  std::array<int, 2> in{}, out{};
  Process process;
  if (::pipe2(in.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  const UniqueFd child_in(in[0]);
  process.in_ = UniqueFd(in[1]);
  if (::pipe2(out.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  process.out_ = UniqueFd(out[0]);
  const UniqueFd child_out(out[1]);
  const UniqueFd errors(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!errors) return ErrnoStatus(errno, "open " + log);
  (void)::fcntl(process.in_.get(), F_SETFL, O_NONBLOCK);
  std::vector<std::string> all = environment;
  for (char** each = environ; *each != nullptr; ++each) all.emplace_back(*each);
  const std::vector<char*> arguments = Pointers(argv), variables = Pointers(all);
  process.pid_ = ::fork();
  if (process.pid_ < 0) return ErrnoStatus(errno, "fork");
  if (process.pid_ == 0) {
    Become(arguments.data(), variables.data(), child_in.get(), child_out.get(), errors.get());
  }
  (void)::setpgid(process.pid_, process.pid_);  // by both: whoever comes first
  return process;
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      status_(other.status_),
      in_(std::move(other.in_)),
      out_(std::move(other.out_)),
      rest_(std::move(other.rest_)) {}

Process::~Process() {
  if (pid_ <= 0 || status_) return;
  Signal(SIGKILL);
  (void)::waitpid(pid_, nullptr, 0);
}

absl::Status Process::WriteLine(const std::string& line, Milliseconds patience) {
  const Instant deadline = SystemClock().Now() + patience;
  const std::string text = line + "\n";
  for (size_t at = 0; at < text.size();) {
    const ssize_t sent = ::write(in_.get(), text.data() + at, text.size() - at);
    if (sent > 0) {
      at += static_cast<size_t>(sent);
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return Unavailable("it does not read its standard input");
    pollfd entry{in_.get(), POLLOUT, 0};
    if (::poll(&entry, 1, LeftMs(deadline)) == 0 && LeftMs(deadline) == 0) {
      return DeadlineExceeded("it does not read its standard input");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Process::ReadLine(Milliseconds patience) {
  const Instant deadline = SystemClock().Now() + patience;
  std::array<char, 65536> buffer;
  for (size_t seen = 0;;) {
    const size_t end = rest_.find('\n', seen);
    if (end != std::string::npos) {
      std::string line = rest_.substr(0, end);
      rest_.erase(0, end + 1);
      return line;
    }
    seen = rest_.size();
    if (seen > kLineBytesMax) return InvalidArgument("a line over {} bytes", kLineBytesMax);
    KVASIR_ASSIGN_OR_RETURN(const bool readable, WaitReadable(out_.get(), LeftMs(deadline)));
    if (!readable) {
      if (LeftMs(deadline) == 0) return DeadlineExceeded("no answer");
      continue;
    }
    const ssize_t got = ::read(out_.get(), buffer.data(), buffer.size());
    if (got > 0) {
      rest_.append(buffer.data(), static_cast<size_t>(got));
    } else if (got == 0 || errno != EINTR) {
      return Unavailable("its standard output has ended");
    }
  }
}

void Process::Signal(int number) const {
  if (pid_ > 0 && !status_) (void)::kill(-pid_, number);
}

absl::Status Process::Stop(Milliseconds patience) {
  const Instant deadline = SystemClock().Now() + patience;
  Signal(SIGSTOP);
  for (siginfo_t info{};;) {
    const int failed = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WNOHANG);
    if (failed == 0 && info.si_pid == pid_) return absl::OkStatus();
    if (LeftMs(deadline) == 0) return DeadlineExceeded("it does not stand still");
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

std::optional<int> Process::Poll() {
  siginfo_t info{};
  if (status_ ||
      ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      info.si_pid != pid_) {
    return status_;
  }
  // Before the number of its group is free for others: what it has started and left behind.
  (void)::kill(-pid_, SIGKILL);
  int raw = 0;
  (void)::waitpid(pid_, &raw, 0);
  status_ = WIFEXITED(raw) ? WEXITSTATUS(raw) : -WTERMSIG(raw);
  return status_;
}

absl::StatusOr<int> Process::Wait(Milliseconds patience) {
  const Instant deadline = SystemClock().Now() + patience;
  while (!Poll()) {
    if (LeftMs(deadline) == 0) return DeadlineExceeded("it does not end");
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return *status_;
}

std::string DescribeEnd(int status) {
  if (status >= 0) return fmt::format("exit status {}", status);
  return fmt::format("signal {} ({})", -status, ::strsignal(-status));
}

}  // namespace kvasir::conformance
