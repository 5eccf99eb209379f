// FakeTier: says what a test tells it to, and counts how often it was asked.
#ifndef KVASIR_TESTS_TIER_FAKE_TIER_H_
#define KVASIR_TESTS_TIER_FAKE_TIER_H_

#include <algorithm>
#include <functional>
#include <span>
#include <utility>

#include "allocator/tier/tier.h"
#include "base/clock.h"

namespace kvasir::testing {

class FakeTier final : public Tier {
 public:
  ReadOutcome outcome = ReadOutcome::kHit;
  absl::Status status;
  std::function<void()> during = [] {};  // while the next call is under way
  int calls = 0;

  void Write(std::span<const WriteItem>, std::span<absl::Status> results,
             const CancelToken*) override {
    std::fill(results.begin(), results.end(), Called());
  }
  void Read(std::span<const ReadItem>, std::span<ReadOutcome> results,
            const CancelToken*) override {
    (void)Called();
    std::fill(results.begin(), results.end(), outcome);
  }
  absl::Status Erase(std::span<const TierKey>) override { return Called(); }
  absl::Status ForEach(const std::function<void(const TierKey&, uint64_t)>&) override {
    return Called();
  }
  absl::Status Flush() override { return Called(); }
  TierStats Stats() const override { return {}; }

 private:
  absl::Status Called() {
    ++calls;
    std::exchange(during, [] {})();
    return status;
  }
};

class FakeClock final : public Clock {
 public:
  Instant Now() const override { return now_; }
  void Advance(std::chrono::milliseconds time) { now_ += time; }

 private:
  Instant now_{std::chrono::hours(1)};
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_TIER_FAKE_TIER_H_
