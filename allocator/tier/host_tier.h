// HostTier: blocks in this process's memory, which is mapped at the start and can be resized.
//
// Thread-safe. A block takes its payload and a header, in whole units; see space_map.h for what
// that wastes. Bytes are verified at every read here too: memory that is held for days does change.
#ifndef KVASIR_ALLOCATOR_TIER_HOST_TIER_H_
#define KVASIR_ALLOCATOR_TIER_HOST_TIER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/block_catalogue.h"
#include "allocator/tier/block_header.h"
#include "allocator/tier/memory_chunk.h"
#include "allocator/tier/tier.h"
#include "allocator/tier/tier_counters.h"
#include "base/mutex.h"

namespace kvasir {

struct HostTierOptions {
  uint64_t capacity_bytes = 0;         // multiple of chunk_bytes
  uint64_t fingerprint = 0;            // of the layout
  uint64_t chunk_bytes = 32ULL << 20;  // mapped and unmapped as one; multiple of 2 MiB
  uint64_t unit_bytes = 16ULL << 10;   // power of two, 4 KiB to 1 MiB
  MemoryUse use = {};
};

class HostTier final : public Tier {
 public:
  static constexpr uint64_t kCapacityBytesMax = uint64_t{64} << 40;

  // Errors: kInvalidArgument naming the field and its bound, kResourceExhausted when the kernel
  // does not have the memory or may not lock it.
  static absl::StatusOr<std::unique_ptr<HostTier>> Create(const HostTierOptions& options);

  void Write(std::span<const WriteItem> items, std::span<absl::Status> results,
             const CancelToken* cancel = nullptr) override;
  void Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
            const CancelToken* cancel = nullptr) override;
  absl::Status Erase(std::span<const TierKey> keys) override;
  absl::Status ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) override;
  absl::Status Flush() override { return absl::OkStatus(); }
  TierStats Stats() const override;

  // Maps or unmaps memory until the capacity is `capacity_bytes`. Shrinking waits for calls that
  // are under way, holds new ones up, and moves blocks out of what goes. Errors: kInvalidArgument
  // as at Create(), kResourceExhausted when more is held, or the kernel has no memory; the capacity
  // is as before then. Cost of shrinking: a copy of what lies in the memory that goes.
  absl::Status Resize(uint64_t capacity_bytes);

  // All of the memory, to damage it.
  std::vector<std::span<std::byte>> MemoryForTest();

 private:
  explicit HostTier(const HostTierOptions& options);

  // A call is under way; Resize() waits until none is.
  class Visit {
   public:
    explicit Visit(HostTier& tier);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    HostTier& tier_;
  };

  absl::Status WriteOne(const WriteItem& item, BlockChecksum& checksum, bool* written);
  ReadOutcome ReadOne(const ReadItem& item, BlockChecksum& checksum);
  absl::Status CheckCapacity(uint64_t capacity_bytes) const;
  std::byte* At(const Piece& piece) const { return chunks_[piece.area].data() + piece.offset; }
  std::byte* AtUnit(uint64_t unit) const;
  void MoveUnits(const UnitRun& from, const UnitRuns& to);

  const HostTierOptions options_;
  TierCounters counters_;

  Mutex resize_mutex_;  // taken before visit_mutex_; one resize at a time
  Mutex visit_mutex_;
  CondVar visits_changed_;
  uint64_t visits_ ABSL_GUARDED_BY(visit_mutex_) = 0;
  bool resizing_ ABSL_GUARDED_BY(visit_mutex_) = false;

  // Changed by Resize() alone, while there is no visit.
  std::vector<MemoryChunk> chunks_;
  BlockCatalogue catalogue_;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_HOST_TIER_H_
