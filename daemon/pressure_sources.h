// PressureSources: what the kernel tells of memory pressure, as one thing to wait for.
//
// Two sources, each where it is there: a trigger of pressure stall information (some task waited
// for memory for 200 ms of 2 s), and the `high` count of the cgroup's memory.events. Neither costs
// anything while nothing happens. Source: Linux, Documentation/accounting/psi.rst and
// Documentation/admin-guide/cgroup-v2.rst; systemd, "Memory Pressure Handling in systemd".
//
// Not thread-safe.
#ifndef KVASIR_DAEMON_PRESSURE_SOURCES_H_
#define KVASIR_DAEMON_PRESSURE_SOURCES_H_

#include <cstdint>
#include <optional>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/posix.h"

namespace kvasir {

class PressureSources {
 public:
  // Those of `folder`; "": of the daemon's own cgroup, where the trigger may also be
  // $MEMORY_PRESSURE_WATCH, which systemd sets from version 254 on and which comes first, or
  // /proc/pressure/memory, which comes last. A FIFO may stand for the trigger: what is written into
  // it tells of pressure. Errors: kNotFound with the reason for each, if there is no source at all.
  static absl::StatusOr<PressureSources> Open(const std::string& folder);

  // Waits until pressure is told of (true), or `wake` is readable or it is `until` (false).
  bool Wait(int wake, std::optional<Instant> until);

  // memory.current and memory.high; 0 where there is none.
  uint64_t used_bytes() const;
  uint64_t high_bytes() const;

  // What is watched and what is not, and why, for the log.
  const std::string& description() const { return description_; }

 private:
  absl::Status OpenTrigger(const std::string& path);
  absl::Status OpenEvents();
  bool ReadTrigger(short events);
  bool ReadEvents();
  uint64_t HighCount() const;

  std::string folder_;
  std::string description_;
  UniqueFd trigger_;
  bool trigger_is_fifo_ = false;
  UniqueFd events_;  // inotify
  uint64_t high_count_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_PRESSURE_SOURCES_H_
