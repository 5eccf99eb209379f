// ExtentMap: the extents that the daemon has handed to this process, mapped, by slot.
#ifndef KVASIR_CLIENT_EXTENT_MAP_H_
#define KVASIR_CLIENT_EXTENT_MAP_H_

#include <cstddef>
#include <cstdint>
#include <map>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/mapped_region.h"
#include "base/mutex.h"
#include "base/unix_socket.h"

namespace kvasir {

// Thread-safe. Mappings live as long as the map.
class ExtentMap {
 public:
  // Reads extent notices from `socket`, which must outlive it.
  explicit ExtentMap(const UniqueFd& socket) : socket_(socket) {}

  // Address of `offset` in the extent of that slot; waits for its notice if it is on its way.
  // Errors: kUnavailable when the daemon hung up, kDeadlineExceeded, kDataLoss when the daemon
  // names a place outside the extent, or for writing one that is lent for reading.
  absl::StatusOr<std::byte*> At(uint32_t slot, uint32_t generation, uint64_t offset, uint64_t bytes,
                                Instant deadline, Access access = Access::kReadOnly);

  uint64_t mapped_bytes() const;

 private:
  struct Entry {
    MappedRegion map;
    uint32_t generation = 0;
    Access access = Access::kReadOnly;
  };
  absl::Status ReceiveOne(Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const UniqueFd& socket_;
  mutable Mutex mutex_;
  std::map<uint32_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_EXTENT_MAP_H_
