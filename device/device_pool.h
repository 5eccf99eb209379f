// DevicePool: bytes of one device as a budget, given out as extents.
//
// Knows owners by an opaque number only. An extent has one owner for life: Return() destroys it,
// and the next Take() makes a fresh, zeroed one. No stock is kept: a ready extent would have to be
// zeroed all the same, and device memory costs its zeroing alone, not a fault a page.
// INVARIANT (CheckConservation): pool = charged + idle, charged is the sum over owners, and waste
// is charged less what was asked for. Thread-safe. Does not own the device, which outlives it.
#ifndef KVASIR_DEVICE_DEVICE_POOL_H_
#define KVASIR_DEVICE_DEVICE_POOL_H_

#include <cstdint>
#include <map>
#include <memory>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mutex.h"
#include "device/device.h"

namespace kvasir::device {

struct DevicePoolCounts {
  uint64_t pool_bytes = 0;
  uint64_t charged_bytes = 0;  // what extents take of the device
  uint64_t idle_bytes = 0;
  uint64_t waste_bytes = 0;  // of charged: the granularity's rounding
  uint64_t extents = 0;
};

class DevicePool {
 public:
  // Errors: kInvalidArgument where pool_bytes is no multiple of the granularity or over the device.
  static absl::StatusOr<std::unique_ptr<DevicePool>> Create(Device& device, uint64_t pool_bytes);
  // REQUIRES: every extent has been returned.
  ~DevicePool();

  // A fresh extent, all zero, that `owner` pays for. Errors: kResourceExhausted with the figures:
  // of the pool, or of a device that has less than the pool was promised.
  absl::StatusOr<std::unique_ptr<DeviceExtent>> Take(uint64_t bytes, uint64_t owner);
  // Destroys it. REQUIRES: from Take() of this pool. The pool counts it idle at once: call it when
  // the owner's processes have let go of it or are dead, or the next Take() finds the device full.
  void Return(std::unique_ptr<DeviceExtent> extent);

  DevicePoolCounts counts() const;
  uint64_t ChargedBytes(uint64_t owner) const;  // 0 of one that has nothing
  // OK, or kInternal naming the sum that is off. Cost: O(extents).
  absl::Status CheckConservation() const;

 private:
  struct Taken {
    uint64_t owner = 0, bytes = 0, charged_bytes = 0;
  };
  DevicePool(Device& device, uint64_t pool_bytes) : device_(device), pool_bytes_(pool_bytes) {}
  void ForgetLocked(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Device& device_;
  const uint64_t pool_bytes_;
  mutable Mutex mutex_;  // leaf lock; not held while memory is made or destroyed
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t charged_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t waste_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Taken> taken_ ABSL_GUARDED_BY(mutex_);                // by id
  std::map<uint64_t, uint64_t> charged_by_owner_ ABSL_GUARDED_BY(mutex_);  // none is 0
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_DEVICE_POOL_H_
