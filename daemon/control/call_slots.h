// CallSlots: how many gRPC calls of each tenant are in the daemon, and how many of those run.
//
// What runs stands in front of the core's one lock. At most kRunning of a tenant do, so that
// however many calls one tenant makes, each of the others meets no more than those of it there; the
// rest wait among themselves. And at most so many wait at all: each has a thread.
//
// Thread-safe.
#ifndef KVASIR_DAEMON_CONTROL_CALL_SLOTS_H_
#define KVASIR_DAEMON_CONTROL_CALL_SLOTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/mutex.h"

namespace kvasir {

class CallSlots {
 public:
  // One runs while another wakes up.
  static constexpr uint32_t kRunning = 2;

  // A call that is in the daemon, until it is destroyed. One thread at a time.
  class Call {
   public:
    Call(Call&& other) noexcept
        : slots_(std::exchange(other.slots_, nullptr)),
          caller_(other.caller_),
          runs_(std::exchange(other.runs_, false)) {}
    Call& operator=(Call&&) = delete;
    ~Call();
    // Waits until it may run. False: the deadline passed.
    bool Run(Instant deadline);
    // It waits for something else: others may run.
    void Pause();

   private:
    friend class CallSlots;
    Call(CallSlots& slots, size_t caller) : slots_(&slots), caller_(caller) {}
    CallSlots* slots_;
    size_t caller_;
    bool runs_ = false;
  };

  // Callers are numbers below `callers`: the tenants by their place, then others.
  CallSlots(size_t callers, uint32_t calls_max);

  // Errors: kResourceExhausted (limits.calls_per_tenant_max), with a Shortage.
  absl::StatusOr<Call> Enter(size_t caller);
  // Calls that were refused for their number, and those that are in now.
  uint64_t refused(size_t caller) const;
  uint32_t inside(size_t caller) const;

 private:
  struct Caller {
    mutable Mutex mutex;
    CondVar may_run;
    uint32_t inside ABSL_GUARDED_BY(mutex) = 0, running ABSL_GUARDED_BY(mutex) = 0;
    uint64_t refused ABSL_GUARDED_BY(mutex) = 0;
  };

  const uint32_t calls_max_;
  std::vector<std::unique_ptr<Caller>> callers_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_CALL_SLOTS_H_
