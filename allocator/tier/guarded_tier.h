// GuardedTier: leaves a tier out while it fails, and tries it again after ever longer waits.
//
// Thread-safe. Three failing calls in a row (an I/O error, a time-out, a refused connection; not a
// miss, a full tier or a bad argument) open the guard: reads are kFailed and writes kUnavailable
// at once. After the wait one call goes through, alone; if it fails, the wait doubles. Time is
// measured by a clock that never goes back, so setting the wall clock changes nothing.
#ifndef KVASIR_ALLOCATOR_TIER_GUARDED_TIER_H_
#define KVASIR_ALLOCATOR_TIER_GUARDED_TIER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>

#include "allocator/tier/tier.h"
#include "allocator/tier/tier_counters.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace kvasir {

struct GuardOptions {
  uint32_t failures_max = 3;                  // calls in a row; at least 1
  std::chrono::milliseconds wait_min{1000};   // the first wait
  std::chrono::milliseconds wait_max{60000};  // at least wait_min
};

class GuardedTier final : public Tier {
 public:
  // `clock` outlives the tier.
  GuardedTier(std::unique_ptr<Tier> tier, const GuardOptions& options, const Clock& clock)
      : tier_(std::move(tier)), options_(options), clock_(clock), wait_(options.wait_min) {}

  void Write(std::span<const WriteItem> items, std::span<absl::Status> results,
             const CancelToken* cancel = nullptr) override;
  void Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
            const CancelToken* cancel = nullptr) override;
  // kUnavailable while the tier is left out, as ForEach() and Flush().
  absl::Status Erase(std::span<const TierKey> keys) override;
  absl::Status ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) override;
  absl::Status Flush() override;
  // The tier's, and what was answered in its place.
  TierStats Stats() const override;

  // The tier is left out now: a call would not reach it.
  bool IsOpen() const;
  // The tier without its guard.
  Tier& tier() { return *tier_; }

 private:
  // May this call go through? Says no, or counts on a Report() of how it went.
  bool Admit();
  void Report(bool failed);
  // Does `call` if it may.
  absl::Status Guard(const std::function<absl::Status()>& call);

  const std::unique_ptr<Tier> tier_;
  const GuardOptions options_;
  const Clock& clock_;
  TierCounters refused_;

  mutable Mutex mutex_;                            // leaf lock
  uint32_t failures_ ABSL_GUARDED_BY(mutex_) = 0;  // in a row
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool trying_ ABSL_GUARDED_BY(mutex_) = false;  // the one call after a wait is under way
  Instant next_try_ ABSL_GUARDED_BY(mutex_);
  std::chrono::milliseconds wait_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_GUARDED_TIER_H_
