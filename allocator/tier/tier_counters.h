// TierCounters: what a tier has done, counted while it does it; and what every tier checks first.
//
// Thread-safe: atomics that publish nothing else, so all orders are relaxed.
#ifndef KVASIR_ALLOCATOR_TIER_TIER_COUNTERS_H_
#define KVASIR_ALLOCATOR_TIER_TIER_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include <absl/status/status.h>

#include "allocator/tier/tier.h"

namespace kvasir {

class TierCounters {
 public:
  // Results of a batch, of which `blocks` with `bytes` of payload were not there before.
  void CountWrites(std::span<const absl::Status> results, uint64_t blocks, uint64_t bytes,
                   uint64_t nanoseconds);
  void CountReads(std::span<const ReadItem> items, std::span<const ReadOutcome> results,
                  uint64_t nanoseconds);
  void CountErases(uint64_t blocks) { erases_.fetch_add(blocks, std::memory_order_relaxed); }

  // The counts, with nothing in the first three fields.
  TierStats Read() const;

 private:
  std::atomic<uint64_t> writes_{0}, write_errors_{0}, erases_{0}, written_bytes_{0}, read_bytes_{0},
      write_ns_{0}, read_ns_{0};
  std::array<std::atomic<uint64_t>, kReadOutcomes> reads_{};
};

// Adds the counts of `from`, not the first three fields.
void AddCounts(const TierStats& from, TierStats* to);

// Nanoseconds since it was made.
class Stopwatch {
 public:
  Stopwatch();
  uint64_t nanoseconds() const;

 private:
  uint64_t since_;
};

// kInvalidArgument unless the payload has 1 to kTierPayloadBytesMax bytes.
absl::Status CheckPayloadBytes(uint64_t bytes);

absl::Status CancelledStatus();

inline bool IsCancelled(const CancelToken* cancel) {
  return cancel != nullptr && cancel->cancelled();
}

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_TIER_COUNTERS_H_
