#include "allocator/tier/host_tier.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

constexpr uint64_t kUnitBytesMin = 4 * kKiB;
constexpr uint64_t kUnitBytesMax = kMiB;

absl::Status CheckUnits(const HostTierOptions& options) {
  if (!std::has_single_bit(options.unit_bytes) || options.unit_bytes < kUnitBytesMin ||
      options.unit_bytes > kUnitBytesMax) {
    return InvalidArgument("unit is no power of two in bounds: unit_bytes={} min={} max={}",
                           options.unit_bytes, kUnitBytesMin, kUnitBytesMax);
  }
  if (options.chunk_bytes == 0 || options.chunk_bytes % MemoryChunk::kHugePageBytes != 0 ||
      options.chunk_bytes > kGiB) {
    return InvalidArgument("chunk is no multiple of 2 MiB up to 1 GiB: chunk_bytes={}",
                           options.chunk_bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status HostTier::CheckCapacity(uint64_t capacity_bytes) const {
  if (capacity_bytes >= options_.chunk_bytes && capacity_bytes % options_.chunk_bytes == 0 &&
      capacity_bytes <= kCapacityBytesMax &&
      capacity_bytes / options_.unit_bytes <= SpaceMap::kUnitsMax) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "capacity out of bounds or no multiple of chunks: capacity_bytes={} chunk_bytes={} max={}",
      capacity_bytes, options_.chunk_bytes,
      std::min(kCapacityBytesMax, options_.unit_bytes * SpaceMap::kUnitsMax));
}

HostTier::HostTier(const HostTierOptions& options)
    : options_(options), catalogue_(0, options.unit_bytes) {}

absl::StatusOr<std::unique_ptr<HostTier>> HostTier::Create(const HostTierOptions& options) {
  KVASIR_RETURN_IF_ERROR(CheckUnits(options));
  std::unique_ptr<HostTier> tier(new HostTier(options));
  KVASIR_RETURN_IF_ERROR(tier->Resize(options.capacity_bytes));
  return tier;
}

HostTier::Visit::Visit(HostTier& tier) : tier_(tier) {
  MutexLock lock(tier_.visit_mutex_);
  while (tier_.resizing_) tier_.visits_changed_.Wait(tier_.visit_mutex_);
  ++tier_.visits_;
}

HostTier::Visit::~Visit() {
  MutexLock lock(tier_.visit_mutex_);
  if (--tier_.visits_ == 0) tier_.visits_changed_.NotifyAll();
}

absl::Status HostTier::WriteOne(const WriteItem& item, BlockChecksum& checksum, bool* written) {
  const uint64_t payload = BytesOf(item.parts);
  KVASIR_RETURN_IF_ERROR(CheckPayloadBytes(payload));
  if (catalogue_.Holds(item.key)) return absl::OkStatus();
  const uint64_t stored = kBlockHeaderBytes + payload;
  KVASIR_ASSIGN_OR_RETURN(const PlacementRef placement, catalogue_.Reserve(payload, stored));

  std::vector<Piece> pieces =
      PiecesOf(placement->runs(), options_.unit_bytes, options_.chunk_bytes, stored);
  std::byte* const head = At(pieces[0]);  // a unit is longer than a header
  BlockHeader header = MakeHeader(options_.fingerprint, item.key, payload);
  checksum.Begin(header);
  size_t piece = 0;
  uint64_t at = kBlockHeaderBytes;
  for (std::span<const std::byte> part : item.parts) {
    while (!part.empty()) {
      if (at == pieces[piece].bytes) {
        ++piece;
        at = 0;
      }
      const uint64_t bytes = std::min<uint64_t>(part.size(), pieces[piece].bytes - at);
      checksum.CopyAndAdd(part.first(bytes), At(pieces[piece]) + at);
      at += bytes;
      part = part.subspan(bytes);
    }
  }
  FinishHeader(header, checksum);
  std::memcpy(head, header.data(), header.size());
  *written = catalogue_.Publish(item.key, placement);
  return absl::OkStatus();
}

void HostTier::Write(std::span<const WriteItem> items, std::span<absl::Status> results,
                     const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const Stopwatch watch;
  const Visit visit(*this);
  BlockChecksum checksum;
  uint64_t blocks = 0, bytes = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    bool written = false;
    results[i] = IsCancelled(cancel) ? CancelledStatus() : WriteOne(items[i], checksum, &written);
    if (written) {
      ++blocks;
      bytes += BytesOf(items[i].parts);
    }
  }
  counters_.CountWrites(results, blocks, bytes, watch.nanoseconds());
}

ReadOutcome HostTier::ReadOne(const ReadItem& item, BlockChecksum& checksum) {
  const PlacementRef placement = catalogue_.Find(item.key);
  if (placement == nullptr) return ReadOutcome::kAbsent;
  if (placement->payload_bytes() != item.into.size()) return ReadOutcome::kWrongLength;
  std::vector<Piece> pieces = PiecesOf(placement->runs(), options_.unit_bytes, options_.chunk_bytes,
                                       kBlockHeaderBytes + item.into.size());
  BlockHeader header;
  std::memcpy(header.data(), At(pieces[0]), header.size());
  ReadOutcome outcome = CheckHeader(header, options_.fingerprint, item.key, item.into.size());
  if (outcome == ReadOutcome::kHit) {
    checksum.Begin(header);
    pieces[0].offset += kBlockHeaderBytes;
    pieces[0].bytes -= kBlockHeaderBytes;
    uint64_t at = 0;
    for (const Piece& piece : pieces) {
      checksum.CopyAndAdd({At(piece), piece.bytes}, item.into.data() + at);
      at += piece.bytes;
    }
    outcome = CheckSum(header, checksum);
  }
  if (outcome != ReadOutcome::kHit) (void)catalogue_.Remove(item.key, placement.get());
  return outcome;
}

void HostTier::Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
                    const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const Stopwatch watch;
  const Visit visit(*this);
  BlockChecksum checksum;
  for (size_t i = 0; i < items.size(); ++i) {
    results[i] = IsCancelled(cancel) ? ReadOutcome::kCancelled : ReadOne(items[i], checksum);
  }
  counters_.CountReads(items, results, watch.nanoseconds());
}

absl::Status HostTier::Erase(std::span<const TierKey> keys) {
  const Visit visit(*this);
  uint64_t erased = 0;
  for (const TierKey& key : keys) erased += catalogue_.Remove(key) != nullptr ? 1 : 0;
  counters_.CountErases(erased);
  return absl::OkStatus();
}

absl::Status HostTier::ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) {
  for (const auto& [key, bytes] : catalogue_.List()) visit(key, bytes);
  return absl::OkStatus();
}

TierStats HostTier::Stats() const {
  TierStats stats = counters_.Read();
  const BlockCatalogue::Counts counts = catalogue_.counts();
  stats.capacity_bytes = counts.units * options_.unit_bytes;
  stats.held_bytes = (counts.units - counts.free_units) * options_.unit_bytes;
  stats.blocks = counts.blocks;
  return stats;
}

absl::Status HostTier::Resize(uint64_t capacity_bytes) {
  KVASIR_RETURN_IF_ERROR(CheckCapacity(capacity_bytes));
  MutexLock lock(resize_mutex_);
  const size_t wanted = capacity_bytes / options_.chunk_bytes;
  const uint64_t units = capacity_bytes / options_.unit_bytes;
  // Mapped before anybody is held up; kept only when all of it could be had.
  std::vector<MemoryChunk> fresh;
  while (chunks_.size() + fresh.size() < wanted) {
    KVASIR_ASSIGN_OR_RETURN(MemoryChunk chunk,
                            MemoryChunk::Map(options_.chunk_bytes, options_.use));
    fresh.push_back(std::move(chunk));
  }
  {
    MutexLock visits(visit_mutex_);
    resizing_ = true;
    while (visits_ > 0) visits_changed_.Wait(visit_mutex_);
  }
  absl::Status status;
  if (wanted >= chunks_.size()) {
    for (MemoryChunk& chunk : fresh) chunks_.push_back(std::move(chunk));
    catalogue_.Grow(units);
  } else {
    status = catalogue_.Shrink(
        units, [this](const UnitRun& from, const UnitRuns& to) { MoveUnits(from, to); });
    if (status.ok()) chunks_.resize(wanted);
  }
  MutexLock visits(visit_mutex_);
  resizing_ = false;
  visits_changed_.NotifyAll();
  return status;
}

void HostTier::MoveUnits(const UnitRun& from, const UnitRuns& to) {
  uint32_t source = from.first;
  for (const UnitRun& run : to) {
    for (uint32_t i = 0; i < run.count; ++i, ++source) {
      std::memcpy(AtUnit(run.first + i), AtUnit(source), options_.unit_bytes);
    }
  }
}

std::byte* HostTier::AtUnit(uint64_t unit) const {
  const uint64_t at = unit * options_.unit_bytes;
  return chunks_[at / options_.chunk_bytes].data() + at % options_.chunk_bytes;
}

std::vector<std::span<std::byte>> HostTier::MemoryForTest() {
  std::vector<std::span<std::byte>> memory;
  for (const MemoryChunk& chunk : chunks_) memory.emplace_back(chunk.data(), chunk.bytes());
  return memory;
}

}  // namespace kvasir
