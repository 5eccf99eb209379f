// DiskIndex: which block lies in which units of the segment files, kept in RocksDB.
//
// Thread-safe. A commit is atomic and survives the process's death at once, a loss of power after
// Sync(). Every entry has a checksum of its own; what does not decode is left out and counted.
#ifndef KVASIR_ALLOCATOR_TIER_DISK_INDEX_H_
#define KVASIR_ALLOCATOR_TIER_DISK_INDEX_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/space_map.h"
#include "allocator/tier/tier_key.h"

namespace rocksdb {
class DB;
}

namespace kvasir {

struct IndexEntry {
  TierKey key;
  uint64_t payload_bytes = 0;
  UnitRuns runs;
};

class DiskIndex {
 public:
  // Opens or makes the index in the folder `path`. Errors: kDataLoss when RocksDB finds it damaged,
  // else as it says.
  static absl::StatusOr<std::unique_ptr<DiskIndex>> Open(const std::string& path);
  ~DiskIndex();

  // Errors: kDataLoss when it ends early. `damaged` counts entries that were left out.
  absl::Status ForEach(const std::function<void(IndexEntry)>& visit, uint64_t* damaged) const;

  // All of it or nothing. After an error RocksDB refuses everything; the next commit tries to
  // bring it back first. Errors: kResourceExhausted (no space), kDataLoss, kUnavailable.
  absl::Status Commit(std::span<const IndexEntry> puts, std::span<const TierKey> erased);

  absl::Status Sync();

 private:
  explicit DiskIndex(std::unique_ptr<rocksdb::DB> db);

  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_DISK_INDEX_H_
