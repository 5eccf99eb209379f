#include "allocator/tier/disk_index.h"

#include <cstring>
#include <utility>

#include "allocator/tier/tier.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>
#include <xxhash.h>

namespace kvasir {
namespace {

// A value: payload bytes u64, count of runs u64, runs (first u32, count u32), XXH3-64 of key and
// all before it. Little-endian.
constexpr size_t kFixedBytes = 16;
constexpr size_t kRunBytes = 8;
constexpr size_t kChecksumBytes = 8;

absl::Status FromRocks(const rocksdb::Status& status, const char* what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (status.IsNoSpace()) return ResourceExhausted("{} failed: text={}", what, text);
  if (status.IsCorruption() || status.IsInvalidArgument()) {
    return DataLoss("{} failed: text={}", what, text);
  }
  return Unavailable("{} failed: text={}", what, text);
}

rocksdb::Slice SliceOf(const TierKey& key) {
  const std::string_view view = key.view();
  return {view.data(), view.size()};
}

uint64_t ChecksumOf(const TierKey& key, std::string_view value) {
  std::string text(key.view());
  text += value;
  return XXH3_64bits(text.data(), text.size());
}

std::string Encode(const IndexEntry& entry) {
  std::string value(kFixedBytes + entry.runs.size() * kRunBytes, '\0');
  const uint64_t count = entry.runs.size();
  std::memcpy(value.data(), &entry.payload_bytes, 8);
  std::memcpy(value.data() + 8, &count, 8);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(value.data() + kFixedBytes + i * kRunBytes, &entry.runs[i].first, 4);
    std::memcpy(value.data() + kFixedBytes + i * kRunBytes + 4, &entry.runs[i].count, 4);
  }
  const uint64_t checksum = ChecksumOf(entry.key, value);
  value.append(reinterpret_cast<const char*>(&checksum), kChecksumBytes);
  return value;
}

bool Decode(std::string_view key, std::string_view value, IndexEntry* entry) {
  if (key.size() != kTierKeyBytes || value.size() < kFixedBytes + kChecksumBytes) return false;
  std::memcpy(entry->key.bytes.data(), key.data(), key.size());
  const std::string_view body = value.substr(0, value.size() - kChecksumBytes);
  uint64_t checksum = 0, count = 0;
  std::memcpy(&checksum, value.data() + body.size(), kChecksumBytes);
  std::memcpy(&entry->payload_bytes, body.data(), 8);
  std::memcpy(&count, body.data() + 8, 8);
  if (checksum != ChecksumOf(entry->key, body)) return false;
  if (count != (body.size() - kFixedBytes) / kRunBytes) return false;
  if (entry->payload_bytes == 0 || entry->payload_bytes > kTierPayloadBytesMax) return false;
  entry->runs.resize(count);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(&entry->runs[i].first, body.data() + kFixedBytes + i * kRunBytes, 4);
    std::memcpy(&entry->runs[i].count, body.data() + kFixedBytes + i * kRunBytes + 4, 4);
  }
  return true;
}

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
  options.keep_log_file_num = 2;
  options.max_log_file_size = kMiB;
  options.max_manifest_file_size = 4 * kMiB;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  return options;
}

}  // namespace

DiskIndex::DiskIndex(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}
DiskIndex::~DiskIndex() = default;

absl::StatusOr<std::unique_ptr<DiskIndex>> DiskIndex::Open(const std::string& path) {
  rocksdb::DB* db = nullptr;
  KVASIR_RETURN_IF_ERROR(FromRocks(rocksdb::DB::Open(IndexOptions(), path, &db), "index open"));
  return std::unique_ptr<DiskIndex>(new DiskIndex(std::unique_ptr<rocksdb::DB>(db)));
}

absl::Status DiskIndex::ForEach(const std::function<void(IndexEntry)>& visit,
                                uint64_t* damaged) const {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(options));
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    IndexEntry entry;
    if (Decode({at->key().data(), at->key().size()}, {at->value().data(), at->value().size()},
               &entry)) {
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
  for (const TierKey& key : erased) {
    KVASIR_RETURN_IF_ERROR(FromRocks(batch.Delete(SliceOf(key)), "index batch"));
  }
  for (const IndexEntry& entry : puts) {
    KVASIR_RETURN_IF_ERROR(FromRocks(batch.Put(SliceOf(entry.key), Encode(entry)), "index batch"));
  }
  rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), &batch);
  if (!status.ok() && db_->Resume().ok()) status = db_->Write(rocksdb::WriteOptions(), &batch);
  return FromRocks(status, "index commit");
}

absl::Status DiskIndex::Sync() { return FromRocks(db_->FlushWAL(true), "index sync"); }

}  // namespace kvasir
