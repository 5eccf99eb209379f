// DiskIndex: which block lies in which units of the segment files, kept in RocksDB.
//
// Thread-safe, but for Commit(): one at a time. A commit is atomic and survives the process's death
// at once, a loss of power after Sync(). Every entry has a checksum of its own; what does not
// decode is left out and counted.
#ifndef KVASIR_ALLOCATOR_TIER_DISK_INDEX_H_
#define KVASIR_ALLOCATOR_TIER_DISK_INDEX_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_set.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/index_entry.h"
#include "allocator/tier/tier_key.h"
#include "base/mutex.h"

namespace rocksdb {
class DB;
class WriteBatch;
}  // namespace rocksdb

namespace kvasir {

class DiskIndex {
 public:
  // Opens or makes the index in the folder `path`. Errors: kDataLoss when RocksDB finds it damaged,
  // else as it says.
  static absl::StatusOr<std::unique_ptr<DiskIndex>> Open(const std::string& path);
  ~DiskIndex();

  // Errors: kDataLoss when it ends early. `damaged` counts entries that were left out.
  absl::Status ForEach(const std::function<void(IndexEntry)>& visit, uint64_t* damaged);

  // All of it or nothing. After an error RocksDB takes nothing more: the next call opens it anew
  // first, and the next commit that succeeds takes out what the failed one put or was to erase,
  // before it names anything else. Errors: kUnavailable (no space is one: erasing blocks does not
  // help), kDataLoss.
  absl::Status Commit(std::span<const IndexEntry> puts, std::span<const TierKey> erased);

  absl::Status Sync();

 private:
  // Shared truly: a Sync() may run while a Commit() opens it anew.
  using Database = std::shared_ptr<rocksdb::DB>;

  DiskIndex(std::string path, Database database);

  // The database, opened anew when it is broken.
  absl::StatusOr<Database> Use();
  absl::Status Write(rocksdb::WriteBatch& batch, bool sync, const char* what);

  const std::string path_;
  absl::flat_hash_set<TierKey> uncertain_;  // of failed commits; Commit() alone uses it

  Mutex mutex_;  // not held while RocksDB writes, but while it is opened anew
  Database database_ ABSL_GUARDED_BY(mutex_);
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_DISK_INDEX_H_
