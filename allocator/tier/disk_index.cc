#include "allocator/tier/disk_index.h"

#include <cstdarg>
#include <cstdio>
#include <utility>

#include "allocator/tier/tier.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

namespace kvasir {
namespace {

absl::Status FromRocks(const rocksdb::Status& status, const char* what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  // A file that the manifest names, or the manifest itself, is gone.
  const bool incomplete = status.IsPathNotFound();
  if (incomplete || status.IsCorruption() || status.IsInvalidArgument()) {
    return DataLoss("{} failed: text={}", what, text);
  }
  return Unavailable("{} failed: text={}", what, text);
}

rocksdb::Slice SliceOf(const TierKey& key) {
  const std::string_view view = key.view();
  return {view.data(), view.size()};
}

// RocksDB's warnings go where ours go. Its own log file ends the process in Debian's build when the
// disk is full: a second line after one that could not be written fails an assertion.
class WarningLogger final : public rocksdb::Logger {
 public:
  WarningLogger() : Logger(rocksdb::WARN_LEVEL) {}
  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char text[512];
    (void)std::vsnprintf(text, sizeof(text), format, arguments);
    spdlog::warn("RocksDB says: text={}", text);
  }
};

// An index of some MiB: small buffers, no compression, no block cache beside the default.
rocksdb::Options IndexOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = 8 * kMiB;
  options.max_total_wal_size = 32 * kMiB;
  options.max_background_jobs = 2;
  options.max_open_files = 64;
  options.max_manifest_file_size = 4 * kMiB;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.info_log = std::make_shared<WarningLogger>();
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  return options;
}

absl::StatusOr<std::shared_ptr<rocksdb::DB>> OpenDatabase(const std::string& path) {
  rocksdb::DB* database = nullptr;
  KVASIR_RETURN_IF_ERROR(
      FromRocks(rocksdb::DB::Open(IndexOptions(), path, &database), "index open"));
  return std::shared_ptr<rocksdb::DB>(database);
}

}  // namespace

DiskIndex::DiskIndex(std::string path, Database database)
    : path_(std::move(path)), database_(std::move(database)) {}
DiskIndex::~DiskIndex() = default;

absl::StatusOr<std::unique_ptr<DiskIndex>> DiskIndex::Open(const std::string& path) {
  KVASIR_ASSIGN_OR_RETURN(Database database, OpenDatabase(path));
  return std::unique_ptr<DiskIndex>(new DiskIndex(path, std::move(database)));
}

absl::StatusOr<DiskIndex::Database> DiskIndex::Use() {
  MutexLock lock(mutex_);
  if (broken_) {
    database_.reset();  // its lock on the folder goes when the last user does
    KVASIR_ASSIGN_OR_RETURN(database_, OpenDatabase(path_));
    broken_ = false;
    spdlog::info("disk tier's index is open again: path={}", path_);
  }
  return database_;
}

absl::Status DiskIndex::Write(rocksdb::WriteBatch& batch, bool sync, const char* what) {
  KVASIR_ASSIGN_OR_RETURN(const Database database, Use());
  rocksdb::WriteOptions options;
  options.sync = sync;
  absl::Status status = FromRocks(database->Write(options, &batch), what);
  if (!status.ok()) {
    MutexLock lock(mutex_);
    // RocksDB's own Resume() does not bring back a log that could not be written, and Debian's
    // build ends the process when such a log is synced.
    broken_ = true;
  }
  return status;
}

absl::Status DiskIndex::ForEach(const std::function<void(IndexEntry)>& visit, uint64_t* damaged) {
  KVASIR_ASSIGN_OR_RETURN(const Database database, Use());
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> at(database->NewIterator(options));
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    IndexEntry entry;
    if (DecodeIndexEntry({at->key().data(), at->key().size()},
                         {at->value().data(), at->value().size()}, &entry)) {
      visit(std::move(entry));
    } else {
      ++*damaged;
    }
  }
  return FromRocks(at->status(), "index scan");
}

absl::Status DiskIndex::Commit(std::span<const IndexEntry> puts, std::span<const TierKey> erased) {
  if (puts.empty() && erased.empty()) return absl::OkStatus();
  rocksdb::WriteBatch batch;
  for (const TierKey& key : uncertain_) {
    KVASIR_RETURN_IF_ERROR(FromRocks(batch.Delete(SliceOf(key)), "index batch"));
  }
  for (const TierKey& key : erased) {
    KVASIR_RETURN_IF_ERROR(FromRocks(batch.Delete(SliceOf(key)), "index batch"));
  }
  for (const IndexEntry& entry : puts) {
    KVASIR_RETURN_IF_ERROR(
        FromRocks(batch.Put(SliceOf(entry.key), EncodeIndexEntry(entry)), "index batch"));
  }
  absl::Status status = Write(batch, false, "index commit");
  if (status.ok()) {
    uncertain_.clear();
  } else {
    // Puts may be in the log all the same, and erased keys may be in the index still; their units
    // go to others. The next commit that succeeds takes them back before it names anything.
    for (const IndexEntry& entry : puts) uncertain_.insert(entry.key);
    uncertain_.insert(erased.begin(), erased.end());
  }
  return status;
}

absl::Status DiskIndex::Sync() {
  // A record that says nothing, synced: all that were appended before it are synced with it.
  rocksdb::WriteBatch batch;
  KVASIR_RETURN_IF_ERROR(FromRocks(batch.PutLogData("sync"), "index batch"));
  return Write(batch, true, "index sync");
}

}  // namespace kvasir
