#include "allocator/tier/tier_counters.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/error.h"

namespace kvasir {
namespace {

constexpr std::memory_order kRelaxed = std::memory_order_relaxed;

uint64_t NowNanoseconds() {
  const auto since = SystemClock().Now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

}  // namespace

void TierCounters::CountWrites(std::span<const absl::Status> results, uint64_t blocks,
                               uint64_t bytes, uint64_t nanoseconds) {
  const auto errors = std::count_if(results.begin(), results.end(),
                                    [](const absl::Status& status) { return !status.ok(); });
  writes_.fetch_add(blocks, kRelaxed);
  write_errors_.fetch_add(static_cast<uint64_t>(errors), kRelaxed);
  written_bytes_.fetch_add(bytes, kRelaxed);
  write_ns_.fetch_add(nanoseconds, kRelaxed);
}

void TierCounters::CountReads(std::span<const ReadItem> items, std::span<const ReadOutcome> results,
                              uint64_t nanoseconds) {
  for (size_t i = 0; i < results.size(); ++i) {
    reads_[static_cast<size_t>(results[i])].fetch_add(1, kRelaxed);
    if (results[i] == ReadOutcome::kHit) read_bytes_.fetch_add(items[i].into.size(), kRelaxed);
  }
  read_ns_.fetch_add(nanoseconds, kRelaxed);
}

TierStats TierCounters::Read() const {
  TierStats stats;
  stats.writes = writes_.load(kRelaxed);
  stats.write_errors = write_errors_.load(kRelaxed);
  stats.erases = erases_.load(kRelaxed);
  for (size_t i = 0; i < kReadOutcomes; ++i) stats.reads[i] = reads_[i].load(kRelaxed);
  stats.written_bytes = written_bytes_.load(kRelaxed);
  stats.read_bytes = read_bytes_.load(kRelaxed);
  stats.write_ns = write_ns_.load(kRelaxed);
  stats.read_ns = read_ns_.load(kRelaxed);
  return stats;
}

void AddCounts(const TierStats& from, TierStats* to) {
  to->writes += from.writes;
  to->write_errors += from.write_errors;
  to->erases += from.erases;
  for (size_t i = 0; i < kReadOutcomes; ++i) to->reads[i] += from.reads[i];
  to->written_bytes += from.written_bytes;
  to->read_bytes += from.read_bytes;
  to->write_ns += from.write_ns;
  to->read_ns += from.read_ns;
}

Stopwatch::Stopwatch() : since_(NowNanoseconds()) {}

uint64_t Stopwatch::nanoseconds() const { return NowNanoseconds() - since_; }

absl::Status CheckPayloadBytes(uint64_t bytes) {
  if (bytes >= 1 && bytes <= kTierPayloadBytesMax) return absl::OkStatus();
  return InvalidArgument("payload out of bounds: bytes={} min=1 max={}", bytes,
                         kTierPayloadBytesMax);
}

absl::Status CancelledStatus() {
  return MakeError(absl::StatusCode::kCancelled, "the batch was cancelled before this block");
}

}  // namespace kvasir
