// AddressRanges: the extents and registered host memory of one device object, so that a copy to
// where nothing is is refused before it starts. On a GPU such a copy would take the whole context
// with it. Thread-safe: a leaf lock.
#ifndef KVASIR_DEVICE_ADDRESS_RANGES_H_
#define KVASIR_DEVICE_ADDRESS_RANGES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include <absl/status/status.h>

#include "base/mapped_region.h"
#include "base/mutex.h"
#include "device/device.h"

namespace kvasir::device {

class AddressRanges {
 public:
  // Errors: kInvalidArgument where it meets another one.
  absl::Status Add(const std::byte* begin, uint64_t bytes, Access access, bool host);
  // REQUIRES: `begin` was added.
  void Remove(const std::byte* begin);

  // Errors: kInvalidArgument or kFailedPrecondition naming the piece and what is wrong with it.
  // Cost: a lock, and O(log n) for each end of a piece.
  absl::Status Check(std::span<const CopyPiece> pieces) const;
  absl::Status Check(std::span<const StridedPiece> pieces) const;
  // What else of a gather fits or does not is checked as well. Cost: as above, but for rows that
  // lie in one range with those before them.
  absl::Status Check(std::span<const RowGather> gathers) const;
  // A word lies in writable host memory.
  absl::Status CheckWord(const char* call, const DeviceWord& word) const;

 private:
  struct Range {
    uint64_t bytes = 0;
    Access access = Access::kReadOnly;
    bool host = false;
  };
  enum class Found { kNothing, kReadOnly, kWritable };
  using Ranges = std::map<uint64_t, Range>;
  // The range that holds all of it, or the end.
  Ranges::const_iterator HolderLocked(const std::byte* begin, uint64_t bytes) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Found FindLocked(const std::byte* begin, uint64_t bytes, bool host_only) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::Status CheckLocked(const char* call, uint64_t piece, const std::byte* dst,
                           uint64_t dst_bytes, const std::byte* src, uint64_t src_bytes) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  Ranges ranges_ ABSL_GUARDED_BY(mutex_);  // by where they begin
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_ADDRESS_RANGES_H_
