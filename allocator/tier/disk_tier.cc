#include "allocator/tier/disk_tier.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <absl/container/flat_hash_set.h>

#include "allocator/tier/block_header.h"
#include "allocator/tier/disk_stream.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

constexpr uint64_t kUnitBytesMin = kPageBytes;
constexpr uint64_t kUnitBytesMax = 4 * kMiB;
constexpr uint64_t kSegmentBytesMin = kMiB;
constexpr uint64_t kSegmentBytesMax = 64 * kGiB;
constexpr uint32_t kRequestsMax = 1024;
constexpr uint32_t kBlocksMax = 256;

absl::Status CheckOptions(const DiskTierOptions& options) {
  if (!std::has_single_bit(options.unit_bytes) || options.unit_bytes < kUnitBytesMin ||
      options.unit_bytes > kUnitBytesMax) {
    return InvalidArgument("unit is no power of two in bounds: unit_bytes={} min={} max={}",
                           options.unit_bytes, kUnitBytesMin, kUnitBytesMax);
  }
  if (options.segment_bytes < kSegmentBytesMin || options.segment_bytes > kSegmentBytesMax ||
      options.segment_bytes % options.unit_bytes != 0) {
    return InvalidArgument(
        "segment out of bounds or no multiple of units: segment_bytes={} unit_bytes={} min={} "
        "max={}",
        options.segment_bytes, options.unit_bytes, kSegmentBytesMin, kSegmentBytesMax);
  }
  const uint64_t segments = options.capacity_bytes / options.segment_bytes;
  if (options.capacity_bytes % options.segment_bytes != 0 || segments == 0 ||
      segments > DiskTier::kSegmentsMax ||
      options.capacity_bytes / options.unit_bytes > SpaceMap::kUnitsMax) {
    return InvalidArgument(
        "capacity out of bounds or no multiple of segments: capacity_bytes={} segment_bytes={} "
        "segments_max={}",
        options.capacity_bytes, options.segment_bytes, DiskTier::kSegmentsMax);
  }
  if (options.requests_in_flight == 0 || options.requests_in_flight > kRequestsMax) {
    return InvalidArgument("requests out of bounds: requests_in_flight={} min=1 max={}",
                           options.requests_in_flight, kRequestsMax);
  }
  if (options.blocks_in_flight == 0 || options.blocks_in_flight > kBlocksMax) {
    return InvalidArgument("blocks out of bounds: blocks_in_flight={} min=1 max={}",
                           options.blocks_in_flight, kBlocksMax);
  }
  return absl::OkStatus();
}

}  // namespace

struct DiskTier::Pending {
  size_t item = 0;
  IndexEntry entry;
  PlacementRef placement;
};

DiskTier::DiskTier(const DiskTierOptions& options, std::unique_ptr<BlockIo> io, SegmentFiles files)
    : options_(options),
      io_(std::move(io)),
      files_(std::move(files)),
      catalogue_(options.capacity_bytes / options.unit_bytes, options.unit_bytes),
      dirty_(std::make_unique<std::atomic<bool>[]>(files_.fds().size())) {}

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(const DiskTierOptions& options,
                                                         std::unique_ptr<BlockIo> io) {
  KVASIR_RETURN_IF_ERROR(CheckOptions(options));
  KVASIR_ASSIGN_OR_RETURN(
      SegmentFiles files,
      SegmentFiles::Open(
          {.path = options.path,
           .fingerprint = options.fingerprint,
           .unit_bytes = options.unit_bytes,
           .segment_bytes = options.segment_bytes,
           .segments = static_cast<uint32_t>(options.capacity_bytes / options.segment_bytes)}));
  std::unique_ptr<DiskTier> tier(new DiskTier(options, std::move(io), std::move(files)));
  KVASIR_RETURN_IF_ERROR(tier->LoadIndex());
  return tier;
}

// Entries that cannot be: of units that do not exist (a smaller capacity), that two blocks claim,
// or that are too few.
absl::StatusOr<uint64_t> DiskTier::LoadEntries(std::vector<TierKey>* dropped) {
  uint64_t damaged = 0;
  KVASIR_RETURN_IF_ERROR(index_->ForEach(
      [&](IndexEntry entry) {
        uint64_t units = 0;
        for (const UnitRun& run : entry.runs) units += run.count;
        const TierKey key = entry.key;
        if (units != DivideUp(DiskBytesOf(entry.payload_bytes), options_.unit_bytes) ||
            !catalogue_.Restore(key, entry.payload_bytes, std::move(entry.runs))) {
          dropped->push_back(key);
        }
      },
      &damaged));
  return damaged;
}

absl::Status DiskTier::LoadIndex() {
  absl::Status status;
  std::vector<TierKey> dropped;
  uint64_t damaged = 0;
  absl::StatusOr<std::unique_ptr<DiskIndex>> index = DiskIndex::Open(files_.index_path());
  if (index.ok()) {
    index_ = *std::move(index);
    const absl::StatusOr<uint64_t> loaded = LoadEntries(&dropped);
    status = loaded.status();
    damaged = loaded.value_or(0);
  } else {
    status = index.status();
  }
  if (absl::IsDataLoss(status)) {
    spdlog::warn("disk tier's index is damaged and starts empty: path={} error={}", options_.path,
                 MessageOf(status));
    index_.reset();
    for (const auto& [key, bytes] : catalogue_.List()) (void)catalogue_.Remove(key);
    dropped.clear();
    KVASIR_RETURN_IF_ERROR(files_.RemoveIndex());
    KVASIR_ASSIGN_OR_RETURN(index_, DiskIndex::Open(files_.index_path()));
  } else {
    KVASIR_RETURN_IF_ERROR(status);
  }
  KVASIR_RETURN_IF_ERROR(index_->Commit({}, dropped));
  const BlockCatalogue::Counts counts = catalogue_.counts();
  spdlog::info("disk tier opened: path={} blocks={} held_bytes={} dropped={} damaged={} direct={}",
               options_.path, counts.blocks,
               (counts.units - counts.free_units) * options_.unit_bytes, dropped.size(), damaged,
               files_.direct());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<BlockTransfer>> DiskTier::TakeTransfer() {
  {
    MutexLock lock(transfers_mutex_);
    if (!transfers_.empty()) {
      std::unique_ptr<BlockTransfer> transfer = std::move(transfers_.back());
      transfers_.pop_back();
      return transfer;
    }
  }
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<IoQueue> queue,
                          io_->OpenQueue(options_.requests_in_flight));
  return std::make_unique<BlockTransfer>(std::move(queue), options_.blocks_in_flight);
}

void DiskTier::ReturnTransfer(std::unique_ptr<BlockTransfer> transfer) {
  MutexLock lock(transfers_mutex_);
  transfers_.push_back(std::move(transfer));
}

std::vector<Piece> DiskTier::PiecesFor(const Placement& placement) const {
  return PiecesOf(placement.runs(), options_.unit_bytes, options_.segment_bytes,
                  DiskBytesOf(placement.payload_bytes()));
}

void DiskTier::MarkDirty(const Placement& placement) {
  // release: pairs with acquire in Flush(), which must see the write that came before.
  for (const Piece& piece : PiecesFor(placement)) {
    dirty_[piece.area].store(true, std::memory_order_release);
  }
}

void DiskTier::Write(std::span<const WriteItem> items, std::span<absl::Status> results,
                     const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const Stopwatch watch;
  absl::StatusOr<std::unique_ptr<BlockTransfer>> transfer = TakeTransfer();
  if (!transfer.ok()) {
    std::fill(results.begin(), results.end(), transfer.status());
    counters_.CountWrites(results, 0, 0, watch.nanoseconds());
    return;
  }
  BlockChecksum checksum;
  std::vector<PlacementRef> placements(items.size());
  std::vector<Pending> pending;
  const auto prepare = [&](size_t i, BlockTransfer::Slot& slot, std::vector<Piece>& pieces) {
    const WriteItem& item = items[i];
    const uint64_t payload = BytesOf(item.parts);
    results[i] = IsCancelled(cancel) ? CancelledStatus() : CheckPayloadBytes(payload);
    if (!results[i].ok() || catalogue_.Holds(item.key)) return false;
    absl::StatusOr<PlacementRef> placement = catalogue_.Reserve(payload, DiskBytesOf(payload));
    results[i] = placement.status();
    if (!placement.ok()) return false;
    placements[i] = *std::move(placement);
    pieces = PiecesFor(*placements[i]);
    LayOutWrite(SealHeader(options_.fingerprint, item.key, item.parts, checksum), item.parts, slot);
    return true;
  };
  const auto finish = [&](BlockTransfer::Slot& slot) {
    PlacementRef placement = std::move(placements[slot.item]);
    if (slot.error != 0) {
      results[slot.item] = ErrnoStatus(slot.error, "write of a block");
    } else if (slot.cut) {
      results[slot.item] = Unavailable("a block was not written to its end");
    } else {
      const IndexEntry entry = {items[slot.item].key, placement->payload_bytes(),
                                UnitRuns(placement->runs().begin(), placement->runs().end())};
      pending.push_back({slot.item, entry, std::move(placement)});
    }
  };
  (*transfer)->Run(true, items.size(), files_.fds(), prepare, finish);
  ReturnTransfer(*std::move(transfer));
  CommitWrites(pending, results);

  uint64_t blocks = 0, bytes = 0;
  for (const Pending& block : pending) {
    if (block.placement == nullptr) continue;
    ++blocks;
    bytes += block.entry.payload_bytes;
  }
  counters_.CountWrites(results, blocks, bytes, watch.nanoseconds());
}

void DiskTier::CommitWrites(std::span<Pending> pending, std::span<absl::Status> results) {
  std::vector<PlacementRef> unused;  // let go after the lock
  std::vector<IndexEntry> entries;
  absl::flat_hash_set<TierKey> keys;
  MutexLock lock(commit_mutex_);
  for (Pending& block : pending) {
    // Somebody else wrote it meanwhile, or it comes twice.
    if (catalogue_.Holds(block.entry.key) || !keys.insert(block.entry.key).second) {
      unused.push_back(std::move(block.placement));
      continue;
    }
    MarkDirty(*block.placement);
    entries.push_back(block.entry);
  }
  const absl::Status status = index_->Commit(entries, {});
  for (Pending& block : pending) {
    if (!status.ok()) results[block.item] = status;
    if (block.placement == nullptr) continue;
    if (status.ok()) {
      KVASIR_CHECK(catalogue_.Publish(block.entry.key, block.placement),
                   "only commits publish, and this one has looked");
    } else {
      unused.push_back(std::move(block.placement));
    }
  }
}

ReadOutcome DiskTier::FinishRead(const ReadItem& item, const BlockTransfer::Slot& slot) {
  if (slot.error != 0) return ReadOutcome::kFailed;
  if (slot.cut) return ReadOutcome::kCut;
  const BlockHeader header = HeaderOf(slot);
  const ReadOutcome outcome = CheckHeader(header, options_.fingerprint, item.key, item.into.size());
  if (outcome != ReadOutcome::kHit) return outcome;
  BlockChecksum checksum;
  checksum.Begin(header);
  TakePayload(slot, item.into, checksum);
  return CheckSum(header, checksum);
}

void DiskTier::Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
                    const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const Stopwatch watch;
  absl::StatusOr<std::unique_ptr<BlockTransfer>> transfer = TakeTransfer();
  if (!transfer.ok()) {
    std::fill(results.begin(), results.end(), ReadOutcome::kFailed);
    counters_.CountReads(items, results, watch.nanoseconds());
    return;
  }
  std::vector<PlacementRef> placements(items.size());
  const auto prepare = [&](size_t i, BlockTransfer::Slot& slot, std::vector<Piece>& pieces) {
    results[i] = ReadOutcome::kCancelled;
    if (IsCancelled(cancel)) return false;
    PlacementRef placement = catalogue_.Find(items[i].key);
    results[i] = ReadOutcome::kAbsent;
    if (placement == nullptr) return false;
    results[i] = ReadOutcome::kWrongLength;
    if (placement->payload_bytes() != items[i].into.size()) return false;
    pieces = PiecesFor(*placement);
    LayOutRead(items[i].into, slot);
    placements[i] = std::move(placement);
    return true;
  };
  const auto finish = [&](BlockTransfer::Slot& slot) {
    const ReadOutcome outcome = FinishRead(items[slot.item], slot);
    const PlacementRef placement = std::move(placements[slot.item]);
    results[slot.item] = outcome;
    if (outcome == ReadOutcome::kFailed) {
      placement->MarkFailed();
    } else if (outcome != ReadOutcome::kHit) {
      Forget(items[slot.item].key, placement);
    }
  };
  (*transfer)->Run(false, items.size(), files_.fds(), prepare, finish);
  ReturnTransfer(*std::move(transfer));
  counters_.CountReads(items, results, watch.nanoseconds());
}

void DiskTier::Forget(const TierKey& key, const PlacementRef& placement) {
  MutexLock lock(commit_mutex_);
  if (catalogue_.Remove(key, placement.get()) == nullptr) return;
  // Where the index fails, the next commit that succeeds takes the key out.
  (void)index_->Commit({}, std::span(&key, 1));
}

absl::Status DiskTier::Erase(std::span<const TierKey> keys) {
  std::vector<PlacementRef> erased;  // let go after the lock
  MutexLock lock(commit_mutex_);
  // Before the units can be given to others. After an error the blocks go all the same: the index
  // takes the keys out before it names another block.
  absl::Status status = index_->Commit({}, keys);
  for (const TierKey& key : keys) {
    PlacementRef placement = catalogue_.Remove(key);
    if (placement != nullptr) erased.push_back(std::move(placement));
  }
  counters_.CountErases(erased.size());
  return status;
}

absl::Status DiskTier::ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) {
  for (const auto& [key, bytes] : catalogue_.List()) visit(key, bytes);
  return absl::OkStatus();
}

absl::Status DiskTier::Flush() {
  MutexLock lock(flush_mutex_);
  for (size_t i = 0; i < files_.fds().size(); ++i) {
    if (!dirty_[i].exchange(false, std::memory_order_acquire)) continue;
    if (const int error = io_->Sync(files_.fds()[i]); error != 0) {
      dirty_[i].store(true, std::memory_order_release);
      return ErrnoStatus(-error, "fdatasync of a segment");
    }
  }
  return index_->Sync();
}

TierStats DiskTier::Stats() const {
  TierStats stats = counters_.Read();
  const BlockCatalogue::Counts counts = catalogue_.counts();
  stats.capacity_bytes = counts.units * options_.unit_bytes;
  stats.held_bytes = (counts.units - counts.free_units) * options_.unit_bytes;
  stats.blocks = counts.blocks;
  return stats;
}

}  // namespace kvasir
