// ExtentMap: the extents that the daemon has handed to this process, mapped, by slot.
#ifndef KVASIR_CLIENT_EXTENT_MAP_H_
#define KVASIR_CLIENT_EXTENT_MAP_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/mapped_region.h"
#include "base/mutex.h"
#include "base/unix_socket.h"

namespace kvasir {

// Thread-safe. A mapping lives until another extent takes its slot, at most as long as the map, and
// longer where somebody holds it.
class ExtentMap {
 public:
  // Reads extent notices from `socket`, which must outlive it.
  explicit ExtentMap(const UniqueFd& socket) : socket_(socket) {}
  ~ExtentMap();
  ExtentMap(const ExtentMap&) = delete;
  ExtentMap& operator=(const ExtentMap&) = delete;

  // What is mapped now stays mapped until the hold is given back, also beyond the map's own life.
  // It may hold more than that: what is mapped later and unmapped meanwhile. The daemon counts an
  // extent as its tenant's until nobody maps it. Cost: a lock and a count.
  std::shared_ptr<const void> Hold() const;

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
  // Mappings that went out of use while this was the newest of its kind. Each holds the next one,
  // so that the holder of one holds all that went out of use since.
  struct Retired {
    ~Retired();
    std::vector<MappedRegion> maps;
    std::shared_ptr<Retired> next;
  };
  absl::Status ReceiveOne(Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const UniqueFd& socket_;
  mutable Mutex mutex_;
  std::map<uint32_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  // Shared with holds.
  std::shared_ptr<Retired> newest_ ABSL_GUARDED_BY(mutex_) = std::make_shared<Retired>();
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_EXTENT_MAP_H_
