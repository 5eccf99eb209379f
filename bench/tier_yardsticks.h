// What bench_tiers compares tiers with: fio on a file, redis-benchmark on a server, and RocksDB's
// blob files, each in bytes of payload per second.
#ifndef KVASIR_BENCH_TIER_YARDSTICKS_H_
#define KVASIR_BENCH_TIER_YARDSTICKS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/tier_key.h"

namespace rocksdb {
class DB;
}

namespace kvasir::bench {

// Sequential requests of `block_bytes` with O_DIRECT and io_uring over `total_bytes` of `file`,
// `depth` at once. Errors: kUnavailable with fio's words.
absl::StatusOr<double> FioBytesPerSecond(const std::string& file, bool write, uint64_t block_bytes,
                                         uint64_t total_bytes, uint32_t depth);

// SET or GET of random keys among `count` by one connection, `depth` at once. Errors: kUnavailable.
absl::StatusOr<double> RedisBenchmarkBytesPerSecond(const std::string& socket, bool write,
                                                    uint64_t block_bytes, uint64_t count,
                                                    uint32_t depth);

// Takes every key out of the server. Errors: kUnavailable.
absl::Status EmptyServer(const std::string& socket);

// GET of `keys` through hiredis's own reader, pipelined. Errors: kUnavailable.
absl::StatusOr<double> HiredisReadBytesPerSecond(const std::string& socket,
                                                 std::span<const std::string> keys, uint32_t depth);

// RocksDB with values in blob files, as an engine for blocks: no write-ahead log, direct I/O, a
// flush at the end of each batch, blobs collected when a quarter of a file is garbage.
class BlobStore {
 public:
  static absl::StatusOr<std::unique_ptr<BlobStore>> Open(const std::string& path);
  ~BlobStore();

  absl::Status Write(std::span<const TierKey> keys, std::span<const std::byte> payload);
  absl::Status Read(std::span<const TierKey> keys, std::span<std::byte> into);
  absl::Status Erase(std::span<const TierKey> keys);
  // Of all blob files that there are.
  uint64_t FileBytes() const;

 private:
  explicit BlobStore(std::unique_ptr<rocksdb::DB> db);
  std::unique_ptr<rocksdb::DB> db_;
};

// Bytes that this process has had written to disks so far, by the kernel's account.
uint64_t DiskBytesWritten();

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_TIER_YARDSTICKS_H_
