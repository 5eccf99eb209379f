#include "base/process_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"

#include <fmt/format.h>
#include <poll.h>

namespace kvasir {
namespace {

// Not in the headers of Debian 12; Linux 6.5 has it.
constexpr int kPeerPidfdOption = 77;
constexpr size_t kProcFileBytesMax = 64 << 10;  // a cgroup path of 4096 bytes on a dozen lines
constexpr size_t kCgroupPathBytesMax = 4096;

constexpr uint64_t MaskOf(std::initializer_list<int> capabilities) {
  uint64_t mask = 0;
  for (const int capability : capabilities) mask |= uint64_t{1} << capability;
  return mask;
}
// Past a file's mode; to its owner or mode; to another user; into other processes; to all of that.
constexpr uint64_t kOverridingCapabilities =
    MaskOf({CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_CHOWN, CAP_FOWNER, CAP_SETUID, CAP_SETFCAP,
            CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_SYS_RAWIO});

// Its number is part of the kernel's interface.
constexpr std::string_view kInitialUserNamespace = "user:[4026531837]";

// What is in front of the first `end`, which goes as well. Everything where there is none.
std::string_view TakeUntil(std::string_view* text, char end) {
  const size_t at = text->find(end);
  const std::string_view taken = text->substr(0, at);
  text->remove_prefix(at == std::string_view::npos ? text->size() : at + 1);
  return taken;
}

bool IsControl(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

template <typename Number>
std::optional<Number> NumberOf(std::string_view text, int base = 10) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// The `index`th field of a line whose fields are parted by tabs.
std::string_view FieldOf(std::string_view line, size_t index) {
  for (size_t i = 0; i < index; ++i) (void)TakeUntil(&line, '\t');
  return TakeUntil(&line, '\t');
}

// The open folder /proc/PID stands for one process: once that is gone it answers ESRCH, whoever
// has the number then.
class ProcFolder {
 public:
  static absl::StatusOr<ProcFolder> Open(std::string path) {
    UniqueFd folder(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return ErrnoStatus(errno, "open " + path);
    return ProcFolder(std::move(folder), std::move(path));
  }

  absl::StatusOr<std::string> Read(const char* name) const {
    const UniqueFd fd(::openat(folder_.get(), name, O_RDONLY | O_CLOEXEC));
    if (!fd) return ErrnoStatus(errno, fmt::format("open {}/{}", path_, name));
    std::string bytes;
    std::array<char, 4096> buffer;
    while (bytes.size() <= kProcFileBytesMax) {
      const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return ErrnoStatus(errno, fmt::format("read {}/{}", path_, name));
      if (got == 0) return bytes;
      bytes.append(buffer.data(), static_cast<size_t>(got));
    }
    return DataLoss("{}/{}: file too large: max_bytes={}", path_, name, kProcFileBytesMax);
  }

  // "" where it may not be read.
  std::string ReadLink(const char* name) const {
    std::array<char, 64> buffer;
    const ssize_t got = ::readlinkat(folder_.get(), name, buffer.data(), buffer.size());
    return got < 0 ? "" : std::string(buffer.data(), static_cast<size_t>(got));
  }

 private:
  ProcFolder(UniqueFd folder, std::string path)
      : folder_(std::move(folder)), path_(std::move(path)) {}

  UniqueFd folder_;
  std::string path_;
};

struct PeerPidfd {
  UniqueFd fd;
  bool of_socket = false;  // the kernel says that it is the peer's, not merely of the same number
};

absl::StatusOr<PeerPidfd> PidfdOfNumber(uint32_t pid) {
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
  if (fd >= 0) return PeerPidfd{UniqueFd(fd), false};
  if (errno == ESRCH) return Unavailable("the process that connected has ended: pid={}", pid);
  return ErrnoStatus(errno, fmt::format("pidfd_open pid={}", pid));
}

absl::StatusOr<PeerPidfd> PidfdOf(const UniqueFd& socket, uint32_t pid) {
  int fd = -1;
  socklen_t size = sizeof(fd);
  if (::getsockopt(socket.get(), SOL_SOCKET, kPeerPidfdOption, &fd, &size) == 0) {
    return PeerPidfd{UniqueFd(fd), true};
  }
  if (errno == ENOPROTOOPT) return PidfdOfNumber(pid);
  if (errno == ESRCH || errno == EINVAL || errno == ENODATA) {
    return Unavailable("the process that connected has ended: pid={}", pid);
  }
  return ErrnoStatus(errno, "getsockopt SO_PEERPIDFD");
}

absl::Status RequireAlive(const UniqueFd& pidfd, uint32_t pid) {
  pollfd ended{pidfd.get(), POLLIN, 0};
  const int ready = ::poll(&ended, 1, 0);
  if (ready < 0) return ErrnoStatus(errno, "poll of a pidfd");
  if (ready > 0) return Unavailable("the process that connected has ended: pid={}", pid);
  return absl::OkStatus();
}

// Whether both have the user namespace of `self`. The name of another user's is not for everybody;
// then the map of its users tells, which is for everybody: what differs is another one.
absl::StatusOr<bool> SharesUserNamespace(const ProcFolder& peer, const ProcFolder& self) {
  const std::string name = peer.ReadLink("ns/user");
  if (!name.empty()) return name == self.ReadLink("ns/user");
  for (const char* map : {"uid_map", "gid_map"}) {
    KVASIR_ASSIGN_OR_RETURN(const std::string theirs, peer.Read(map));
    KVASIR_ASSIGN_OR_RETURN(const std::string ours, self.Read(map));
    if (theirs != ours) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<uint64_t> ParseStartTime(std::string_view stat) {
  // Behind the last parenthesis nothing is the process's to choose.
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos) return DataLoss("stat has no name");
  std::string_view rest = stat.substr(name_end + 1);
  (void)TakeUntil(&rest, ' ');  // in front of field 3
  for (int field = 3; field < 22; ++field) (void)TakeUntil(&rest, ' ');
  const std::optional<uint64_t> ticks = NumberOf<uint64_t>(TakeUntil(&rest, ' '));
  if (!ticks) return DataLoss("stat has no start time");
  return *ticks;
}

absl::StatusOr<std::string> ParseCgroup(std::string_view cgroup) {
  constexpr std::string_view kUnified = "0::";
  while (!cgroup.empty()) {
    std::string_view line = TakeUntil(&cgroup, '\n');
    if (!line.starts_with(kUnified)) continue;
    line.remove_prefix(kUnified.size());
    if (line.empty() || line.front() != '/' || line.size() > kCgroupPathBytesMax) {
      return DataLoss("cgroup is no path: bytes={} max={}", line.size(), kCgroupPathBytesMax);
    }
    if (std::any_of(line.begin(), line.end(), IsControl))
      return DataLoss("cgroup has a control byte");
    const std::string path(line);
    while (!line.empty()) {
      if (TakeUntil(&line, '/') == "..") return "";
    }
    return path;
  }
  return "";
}

absl::StatusOr<ProcessStatus> ParseProcessStatus(std::string_view status) {
  std::optional<uint32_t> uid, gid;
  std::optional<uint64_t> capabilities;
  uint32_t namespaces = 1;  // a kernel without process namespaces has no line
  while (!status.empty()) {
    const std::string_view line = TakeUntil(&status, '\n');
    const std::string_view name = FieldOf(line, 0);
    // Real, effective, saved, of file accesses.
    if (name == "Uid:") uid = NumberOf<uint32_t>(FieldOf(line, 2));
    if (name == "Gid:") gid = NumberOf<uint32_t>(FieldOf(line, 2));
    if (name == "CapPrm:") capabilities = NumberOf<uint64_t>(FieldOf(line, 1), 16);
    if (name == "NSpid:") {
      namespaces = static_cast<uint32_t>(std::count(line.begin(), line.end(), '\t'));
    }
  }
  if (!uid || !gid || !capabilities) {
    return DataLoss("status lacks a line: Uid={} Gid={} CapPrm={}", uid.has_value(),
                    gid.has_value(), capabilities.has_value());
  }
  return ProcessStatus{*uid, *gid, *capabilities, namespaces};
}

namespace {

absl::StatusOr<PeerIdentity> Identify(const UniqueFd& socket, bool by_number) {
  KVASIR_ASSIGN_OR_RETURN(const PeerCredentials peer, GetPeerCredentials(socket));
  if (peer.pid == 0) {
    return FailedPrecondition(
        "the process that connected is of a process namespace that this one cannot see: uid={}",
        peer.uid);
  }
  PeerIdentity identity;
  identity.uid = peer.uid;
  identity.gid = peer.gid;
  identity.pid = peer.pid;
  KVASIR_ASSIGN_OR_RETURN(PeerPidfd pidfd,
                          by_number ? PidfdOfNumber(peer.pid) : PidfdOf(socket, peer.pid));
  identity.pidfd = std::move(pidfd.fd);
  // First of all: who has ended is not to be told of as a missing file.
  KVASIR_RETURN_IF_ERROR(RequireAlive(identity.pidfd, peer.pid));
  KVASIR_ASSIGN_OR_RETURN(const ProcFolder folder,
                          ProcFolder::Open(fmt::format("/proc/{}", peer.pid)));
  KVASIR_ASSIGN_OR_RETURN(const ProcFolder self, ProcFolder::Open("/proc/self"));
  KVASIR_ASSIGN_OR_RETURN(const std::string stat, folder.Read("stat"));
  KVASIR_ASSIGN_OR_RETURN(identity.start_time_ticks, ParseStartTime(stat));
  KVASIR_ASSIGN_OR_RETURN(const std::string cgroup, folder.Read("cgroup"));
  KVASIR_ASSIGN_OR_RETURN(identity.cgroup, ParseCgroup(cgroup));
  KVASIR_ASSIGN_OR_RETURN(const std::string status_text, folder.Read("status"));
  KVASIR_ASSIGN_OR_RETURN(const ProcessStatus status, ParseProcessStatus(status_text));
  KVASIR_ASSIGN_OR_RETURN(const bool same_users, SharesUserNamespace(folder, self));
  KVASIR_ASSIGN_OR_RETURN(const std::string stat_after, folder.Read("stat"));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t start_after, ParseStartTime(stat_after));
  // Alive now, so the number was its all the time, and so was the folder of that number.
  KVASIR_RETURN_IF_ERROR(RequireAlive(identity.pidfd, peer.pid));
  if (start_after != identity.start_time_ticks) {
    return Unavailable("the process that connected has ended: pid={} start_ticks={} later={}",
                       peer.pid, identity.start_time_ticks, start_after);
  }
  // An older kernel gives the pidfd of whoever has the number: at least of the same user.
  if (!pidfd.of_socket && (status.effective_uid != peer.uid || status.effective_gid != peer.gid)) {
    return Unavailable("the process that connected is another one now: pid={} uid={} uid_now={}",
                       peer.pid, peer.uid, status.effective_uid);
  }
  // Below the initial user namespace there is no telling whether another one lies above or below:
  // the answer is the careful one.
  const bool counts = same_users || self.ReadLink("ns/user") != kInitialUserNamespace;
  identity.overrides_permissions =
      peer.uid == 0 || peer.uid == ::geteuid() ||
      (counts && (status.permitted_capabilities & kOverridingCapabilities) != 0);
  identity.contained = !same_users || status.pid_namespaces > 1;
  return identity;
}

}  // namespace

absl::StatusOr<PeerIdentity> IdentifyPeer(const UniqueFd& socket) {
  return Identify(socket, /*by_number=*/false);
}

absl::StatusOr<PeerIdentity> IdentifyPeerByNumber(const UniqueFd& socket) {
  return Identify(socket, /*by_number=*/true);
}

}  // namespace kvasir
