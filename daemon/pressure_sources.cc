#include "daemon/pressure_sources.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "allocator/host_memory.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"

#include <poll.h>

namespace kvasir {
namespace {

constexpr char kHostPressure[] = "/proc/pressure/memory";
// Windows of 2 s are what the kernel grants to anybody (since 6.4). The closing zero is part of it.
constexpr char kTrigger[] = "some 200000 2000000";

// Where a trigger may be, the best first.
std::vector<std::string> TriggerPaths(const std::string& folder, const std::string& cgroup) {
  if (!folder.empty()) return {folder + "/memory.pressure"};
  std::vector<std::string> paths;
  if (const char* given = std::getenv("MEMORY_PRESSURE_WATCH")) paths.emplace_back(given);
  if (!cgroup.empty()) paths.push_back(cgroup + "/memory.pressure");
  paths.emplace_back(kHostPressure);
  return paths;
}

uint64_t NumberIn(const std::string& path) {
  const std::string text = ReadKernelFile(path);  // "max": none
  return std::strtoull(text.c_str(), nullptr, 10);
}

bool Drain(int fd) {
  std::array<char, 4096> buffer{};
  bool any = false;
  while (::read(fd, buffer.data(), buffer.size()) > 0) any = true;
  return any;
}

// Rounded up, so that it is `until` when poll() ends.
int MillisecondsTo(std::optional<Instant> until) {
  if (!until) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*until - SystemClock().Now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

}  // namespace

absl::StatusOr<PressureSources> PressureSources::Open(const std::string& folder) {
  PressureSources sources;
  sources.folder_ = folder.empty() ? OwnCgroupFolder() : folder;
  std::string trigger = "none", reasons;
  for (const std::string& path : TriggerPaths(folder, sources.folder_)) {
    const absl::Status opened = sources.OpenTrigger(path);
    if (opened.ok()) {
      trigger = path;
      break;
    }
    reasons += " (" + MessageOf(opened) + ")";
  }
  const absl::Status events = sources.OpenEvents();
  if (!events.ok()) reasons += " (" + MessageOf(events) + ")";
  sources.description_ = fmt::format(
      "trigger={} events={}{}", trigger,
      sources.events_ ? sources.folder_ + "/memory.events" : std::string("none"), reasons);
  if (!sources.trigger_ && !sources.events_) return NotFound("{}", sources.description_);
  return sources;
}

absl::Status PressureSources::OpenTrigger(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (!fd) return ErrnoStatus(errno, "open " + path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "stat " + path);
  if (!S_ISFIFO(info.st_mode) && !S_ISREG(info.st_mode)) {
    return FailedPrecondition("{} is neither a file nor a FIFO", path);  // systemd's "off"
  }
  trigger_is_fifo_ = S_ISFIFO(info.st_mode);
  if (!trigger_is_fifo_ && ::write(fd.get(), kTrigger, sizeof(kTrigger)) < 0) {
    return ErrnoStatus(errno, "write of a trigger to " + path);
  }
  trigger_ = std::move(fd);
  return absl::OkStatus();
}

absl::Status PressureSources::OpenEvents() {
  if (folder_.empty()) return NotFound("no cgroup of version 2");
  const std::string path = folder_ + "/memory.events";
  UniqueFd fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, "inotify_init1");
  if (::inotify_add_watch(fd.get(), path.c_str(), IN_MODIFY) < 0) {
    return ErrnoStatus(errno, "watch of " + path);
  }
  events_ = std::move(fd);
  high_count_ = HighCount();
  return absl::OkStatus();
}

bool PressureSources::Wait(int wake, std::optional<Instant> until) {
  for (;;) {
    const short wanted = trigger_is_fifo_ ? POLLIN : POLLPRI;
    std::array<pollfd, 3> entries{pollfd{wake, POLLIN, 0}, pollfd{trigger_.get(), wanted, 0},
                                  pollfd{events_.get(), POLLIN, 0}};  // -1 is passed over
    const int ready = ::poll(entries.data(), entries.size(), MillisecondsTo(until));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0 || entries[0].revents != 0) return false;
    const bool trigger = ReadTrigger(entries[1].revents);
    const bool events = entries[2].revents != 0 && ReadEvents();
    if (trigger || events) return true;
  }
}

bool PressureSources::ReadTrigger(short events) {
  if (trigger_is_fifo_) return events != 0 && Drain(trigger_.get());
  if ((events & POLLERR) != 0) {  // the cgroup is gone
    spdlog::warn("memory pressure is not told of any more: {}", description_);
    trigger_.reset();
    return false;
  }
  return (events & POLLPRI) != 0;
}

bool PressureSources::ReadEvents() {
  (void)Drain(events_.get());
  const uint64_t count = HighCount();
  if (count <= high_count_) return false;  // other counts of the file are other matters
  high_count_ = count;
  return true;
}

uint64_t PressureSources::HighCount() const {
  const std::string text = "\n" + ReadKernelFile(folder_ + "/memory.events");
  const size_t at = text.find("\nhigh ");
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + 6, nullptr, 10);
}

uint64_t PressureSources::used_bytes() const {
  return folder_.empty() ? 0 : NumberIn(folder_ + "/memory.current");
}

uint64_t PressureSources::high_bytes() const {
  return folder_.empty() ? 0 : NumberIn(folder_ + "/memory.high");
}

}  // namespace kvasir
