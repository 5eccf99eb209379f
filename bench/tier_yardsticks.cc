#include "bench/tier_yardsticks.h"

#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <nlohmann/json.hpp>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

namespace kvasir::bench {
namespace {

absl::StatusOr<std::string> OutputOf(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return Unavailable("popen failed: command={}", command);
  std::string text;
  char buffer[4096];
  for (size_t got = 0; (got = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    text.append(buffer, got);
  }
  const int status = ::pclose(pipe);
  if (status != 0) return Unavailable("command failed: command={} output={}", command, text);
  return text;
}

absl::Status FromRocks(const rocksdb::Status& status) {
  return status.ok() ? absl::OkStatus() : Unavailable("RocksDB: text={}", status.ToString());
}

rocksdb::Slice SliceOf(const TierKey& key) {
  return {reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size()};
}

}  // namespace

absl::StatusOr<double> FioBytesPerSecond(const std::string& file, bool write, uint64_t block_bytes,
                                         uint64_t total_bytes, uint32_t depth) {
  KVASIR_ASSIGN_OR_RETURN(
      const std::string text,
      OutputOf(fmt::format("fio --name=yardstick --filename='{}' --rw={} --bs={} --size={} "
                           "--iodepth={} --ioengine=io_uring --direct=1 --output-format=json 2>&1",
                           file, write ? "write" : "read", block_bytes,
                           RoundDown(total_bytes, block_bytes), depth)));
  const auto report = nlohmann::json::parse(text, nullptr, false);
  if (report.is_discarded()) return Unavailable("fio says no JSON: text={}", text);
  return report["jobs"][0][write ? "write" : "read"]["bw_bytes"].get<double>();
}

absl::StatusOr<double> RedisBenchmarkBytesPerSecond(const std::string& socket, bool write,
                                                    uint64_t block_bytes, uint64_t count,
                                                    uint32_t depth) {
  KVASIR_ASSIGN_OR_RETURN(
      const std::string text,
      OutputOf(fmt::format("redis-benchmark -s '{}' -t {} -d {} -n {} -r {} -c 1 -P {} --csv 2>&1",
                           socket, write ? "set" : "get", block_bytes, count, count, depth)));
  // "SET","123.4",... in the last line.
  const size_t at = text.rfind(write ? "\"SET\",\"" : "\"GET\",\"");
  if (at == std::string::npos) return Unavailable("redis-benchmark says: text={}", text);
  return std::strtod(text.c_str() + at + 7, nullptr) * static_cast<double>(block_bytes);
}

absl::Status EmptyServer(const std::string& socket) {
  const std::unique_ptr<redisContext, void (*)(redisContext*)> context(
      ::redisConnectUnix(socket.c_str()), ::redisFree);
  if (context == nullptr || context->err != 0) return Unavailable("connect failed");
  void* const answer = ::redisCommand(context.get(), "FLUSHALL SYNC");
  if (answer == nullptr) return Unavailable("no answer to FLUSHALL");
  ::freeReplyObject(answer);
  return absl::OkStatus();
}

absl::StatusOr<double> HiredisReadBytesPerSecond(const std::string& socket,
                                                 std::span<const std::string> keys,
                                                 uint32_t depth) {
  redisContext* context = ::redisConnectUnix(socket.c_str());
  if (context == nullptr || context->err != 0) return Unavailable("connect failed");
  const auto since = std::chrono::steady_clock::now();
  double bytes = 0;
  size_t asked = 0;
  for (size_t answered = 0; answered < keys.size(); ++answered) {
    for (; asked < keys.size() && asked - answered < depth; ++asked) {
      (void)::redisAppendCommand(context, "GET %b", keys[asked].data(), keys[asked].size());
    }
    void* answer = nullptr;
    if (::redisGetReply(context, &answer) != REDIS_OK) return Unavailable("no answer");
    auto* const reply = static_cast<redisReply*>(answer);
    bytes += static_cast<double>(reply->len);
    ::freeReplyObject(reply);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - since;
  ::redisFree(context);
  return bytes / took.count();
}

BlobStore::BlobStore(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}
BlobStore::~BlobStore() = default;

absl::StatusOr<std::unique_ptr<BlobStore>> BlobStore::Open(const std::string& path) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;
  options.use_direct_reads = true;
  options.use_direct_io_for_flush_and_compaction = true;
  options.max_background_jobs = 2;
  options.write_buffer_size = 64 * kMiB;
  options.enable_blob_files = true;
  options.min_blob_size = 0;
  options.blob_file_size = 256 * kMiB;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_age_cutoff = 1.0;
  options.blob_garbage_collection_force_threshold = 0.25;
  rocksdb::DB* db = nullptr;
  KVASIR_RETURN_IF_ERROR(FromRocks(rocksdb::DB::Open(options, path, &db)));
  return std::unique_ptr<BlobStore>(new BlobStore(std::unique_ptr<rocksdb::DB>(db)));
}

absl::Status BlobStore::Write(std::span<const TierKey> keys, std::span<const std::byte> payload) {
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  const rocksdb::Slice value(reinterpret_cast<const char*>(payload.data()), payload.size());
  for (const TierKey& key : keys) {
    KVASIR_RETURN_IF_ERROR(FromRocks(db_->Put(options, SliceOf(key), value)));
  }
  return FromRocks(db_->Flush(rocksdb::FlushOptions()));
}

absl::Status BlobStore::Read(std::span<const TierKey> keys, std::span<std::byte> into) {
  for (const TierKey& key : keys) {
    rocksdb::PinnableSlice value;
    KVASIR_RETURN_IF_ERROR(FromRocks(
        db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), SliceOf(key), &value)));
    if (value.size() != into.size()) return Unavailable("a blob is too short");
    std::memcpy(into.data(), value.data(), value.size());
  }
  return absl::OkStatus();
}

absl::Status BlobStore::Erase(std::span<const TierKey> keys) {
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  for (const TierKey& key : keys) {
    KVASIR_RETURN_IF_ERROR(FromRocks(db_->Delete(options, SliceOf(key))));
  }
  return absl::OkStatus();
}

uint64_t BlobStore::FileBytes() const {
  uint64_t bytes = 0;
  (void)db_->GetIntProperty("rocksdb.total-blob-file-size", &bytes);
  return bytes;
}

uint64_t DiskBytesWritten() {
  std::ifstream file("/proc/self/io");
  std::string name;
  uint64_t value = 0;
  while (file >> name >> value) {
    if (name == "write_bytes:") return value;
  }
  return 0;
}

}  // namespace kvasir::bench
