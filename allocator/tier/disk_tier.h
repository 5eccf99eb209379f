// DiskTier: blocks in preallocated segment files on a local disk, found by an index in RocksDB.
//
// Thread-safe. A block is a page with its header, then its payload, in whole units. It moves
// straight between the disk and the caller's memory where that begins at a page; other memory is
// copied through a buffer (per calling thread `blocks_in_flight` of the largest block so far).
//
// What survives: the index names a block after its bytes were written, and a write says OK after
// that. So after the process's death at any point every block that was said to be written is
// there. After a loss of power every block is there that was said to be written before a Flush()
// that said OK; others may be there. What is neither is free space, and what was damaged is a
// miss: the checksum finds it.
#ifndef KVASIR_ALLOCATOR_TIER_DISK_TIER_H_
#define KVASIR_ALLOCATOR_TIER_DISK_TIER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/block_catalogue.h"
#include "allocator/tier/block_io.h"
#include "allocator/tier/block_transfer.h"
#include "allocator/tier/disk_index.h"
#include "allocator/tier/segment_files.h"
#include "allocator/tier/tier.h"
#include "allocator/tier/tier_counters.h"
#include "base/mutex.h"

namespace kvasir {

struct DiskTierOptions {
  std::string path;                     // absolute folder; made when missing
  uint64_t capacity_bytes = 0;          // multiple of segment_bytes; the index comes on top
  uint64_t fingerprint = 0;             // of the layout; another one's blocks are dropped
  uint64_t segment_bytes = 1ULL << 30;  // 1 MiB to 64 GiB, multiple of unit_bytes
  // Power of two, 4 KiB to 4 MiB. With 64 KiB a block of 256 KiB and its header take a quarter more
  // than their bytes; below 4 KiB no O_DIRECT. After long use the shortest transfer.
  uint64_t unit_bytes = 16ULL << 10;
  uint32_t requests_in_flight = 64;  // of one call; 1 to 1,024
  uint32_t blocks_in_flight = 8;     // of one call; 1 to 256
};

class DiskTier final : public Tier {
 public:
  static constexpr uint64_t kSegmentsMax = 4096;

  // Opens the folder with what it holds, or makes it (segment_files.h). A damaged index is dropped
  // with everything it named. Errors: kInvalidArgument naming the field and its bound, else those
  // of SegmentFiles::Open() and the kernel. Cost: reads the index, reserves space.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(const DiskTierOptions& options,
                                                        std::unique_ptr<BlockIo> io);

  void Write(std::span<const WriteItem> items, std::span<absl::Status> results,
             const CancelToken* cancel = nullptr) override;
  void Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
            const CancelToken* cancel = nullptr) override;
  absl::Status Erase(std::span<const TierKey> keys) override;
  absl::Status ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) override;
  // fdatasync of the segments that were written, then of the index's log.
  absl::Status Flush() override;
  TierStats Stats() const override;

 private:
  struct Pending;  // a block of a batch of writes

  DiskTier(const DiskTierOptions& options, std::unique_ptr<BlockIo> io, SegmentFiles files);

  absl::Status LoadIndex();
  absl::StatusOr<uint64_t> LoadEntries(std::vector<TierKey>* dropped);
  absl::StatusOr<std::unique_ptr<BlockTransfer>> TakeTransfer();
  void ReturnTransfer(std::unique_ptr<BlockTransfer> transfer);

  // Names the written blocks in the index and in the catalogue.
  void CommitWrites(std::span<Pending> pending, std::span<absl::Status> results);
  ReadOutcome FinishRead(const ReadItem& item, const BlockTransfer::Slot& slot);
  void Forget(const TierKey& key, const PlacementRef& placement);
  std::vector<Piece> PiecesFor(const Placement& placement) const;
  void MarkDirty(const Placement& placement);

  const DiskTierOptions options_;
  const std::unique_ptr<BlockIo> io_;
  const SegmentFiles files_;
  std::unique_ptr<DiskIndex> index_;
  TierCounters counters_;
  BlockCatalogue catalogue_;
  std::unique_ptr<std::atomic<bool>[]> dirty_;  // a segment: written since its last fdatasync

  // Orders changes of index and catalogue alike; reads and data transfers do not take it. Held
  // while RocksDB appends to its log.
  Mutex commit_mutex_;

  // Two Flush() at once: the second must not return before the first has synced for it.
  Mutex flush_mutex_;

  Mutex transfers_mutex_;  // leaf lock
  std::vector<std::unique_ptr<BlockTransfer>> transfers_ ABSL_GUARDED_BY(transfers_mutex_);
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_DISK_TIER_H_
