// What a host device and all that it made share. Private to device/host. Thread-safe.
#ifndef KVASIR_DEVICE_HOST_HOST_STATE_H_
#define KVASIR_DEVICE_HOST_HOST_STATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <shared_mutex>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "base/mutex.h"
#include "base/posix.h"
#include "device/address_ranges.h"
#include "device/device.h"

namespace kvasir::device {

class HostState {
 public:
  DeviceFacts facts;  // constant after construction
  AddressRanges ranges;

  // OK, or kUnavailable once the device is lost, and then nothing is touched any more.
  absl::Status Health() ABSL_LOCKS_EXCLUDED(mutex_);
  void Lose(const std::string& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  bool lost() const { return lost_.load(std::memory_order_acquire); }

  // Charges an extent. Errors: kResourceExhausted with the figures.
  absl::Status Charge(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void Uncharge(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  // The extent behind `probe` is destroyed here; its bytes are free once nobody holds the file.
  void Leave(UniqueFd probe, uint64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t FreeBytes() ABSL_LOCKS_EXCLUDED(mutex_);

  // Extents that are hidden: where they are shown, and where they are.
  void Hide(const std::byte* shown, uint64_t bytes, std::byte* real) ABSL_LOCKS_EXCLUDED(mutex_);
  void Unhide(const std::byte* shown) ABSL_LOCKS_EXCLUDED(mutex_);
  // Where the byte is that is shown there; itself where nothing is hidden.
  std::byte* Real(const std::byte* shown) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether this one fails, by what a test asked for.
  bool TakeCopyFault();

  // Held shared by a stream while it touches memory, exclusively by who has to know that none does.
  std::shared_mutex touching;
  std::atomic<uint64_t> create_faults = 0, import_faults = 0;
  std::atomic<uint64_t> copies_before_fault = 0, copy_faults = 0;
  std::atomic<bool> hold = false;

 private:
  struct Left {
    UniqueFd probe;
    uint64_t bytes = 0;
  };
  // Asks the kernel who still holds what has been left.
  void Reap() ABSL_LOCKS_EXCLUDED(mutex_);

  std::atomic<bool> lost_ = false;
  Mutex mutex_;  // leaf lock; not held over a system call
  std::string reason_ ABSL_GUARDED_BY(mutex_);
  uint64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Left> left_ ABSL_GUARDED_BY(mutex_);
  struct Hidden {
    uint64_t bytes = 0;
    std::byte* real = nullptr;
  };
  std::map<uint64_t, Hidden> hidden_ ABSL_GUARDED_BY(mutex_);  // by where they are shown
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_HOST_HOST_STATE_H_
