// The curve against an exact LRU stack: equal while every chunk is followed, within the stated
// error when few are, in bounded memory.
#include "eviction/hit_rate_curve.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <list>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "replay/trace.h"
#include "tests/eviction/workload.h"

namespace kvasir::eviction {
namespace {

constexpr uint64_t kNever = kCurveChunksMax + 1;

// Distances by walking a list.
class ExactStack {
 public:
  void Ask(std::span<const ChainKey> chain) {
    for (const ChainKey& key : chain) {
      uint64_t distance = 1;
      auto at = stack_.begin();
      for (; at != stack_.end() && *at != key; ++at) ++distance;
      sizes_.push_back(at == stack_.end() ? kNever : distance);
    }
    Store(chain);
  }
  void Store(std::span<const ChainKey> chain) {
    for (size_t i = chain.size(); i-- > 0;) {
      const auto at = std::find(stack_.begin(), stack_.end(), chain[i]);
      if (at != stack_.end()) stack_.erase(at);
      stack_.push_front(chain[i]);
    }
  }
  double HitRatio(uint64_t chunks) const {
    const auto hits =
        std::count_if(sizes_.begin(), sizes_.end(), [&](uint64_t size) { return size <= chunks; });
    return static_cast<double>(hits) / static_cast<double>(sizes_.size());
  }
  // A size to which the curve rounds: none of its bucket is above it.
  static uint64_t EndOfBucket(uint64_t chunks) {
    uint64_t step = 1;
    while (chunks / step >= 32) step *= 2;
    return (chunks / step + 1) * step - 1;
  }
  size_t different() const { return stack_.size(); }

 private:
  std::list<ChainKey> stack_;
  std::vector<uint64_t> sizes_;  // from which on each that was asked for hits
};

std::vector<WorkloadRequest> Requests(uint64_t seed, int count) {
  Workload workload(seed);
  std::vector<WorkloadRequest> requests;
  for (int i = 0; i < count; ++i) requests.push_back(workload.Next());
  return requests;
}

// Chains of keys whose popularity falls with their rank: many different ones, spread over all
// distances.
std::vector<std::vector<ChainKey>> RandomChains(uint64_t seed, int count) {
  std::mt19937_64 random(seed);
  std::vector<std::vector<ChainKey>> chains;
  for (int i = 0; i < count; ++i) {
    const double share = static_cast<double>(random() % 1'000'000 + 1) / 1e6;
    ChainKey key{7, static_cast<uint64_t>(3000 * share * share)};
    std::vector<ChainKey> chain;
    for (uint64_t block = 0; block < 1 + random() % 3; ++block) {
      chain.push_back(key = TestKey(key, block));
    }
    chains.push_back(std::move(chain));
  }
  return chains;
}

double MeanError(const HitRateCurve& curve, const ExactStack& exact,
                 const std::vector<uint64_t>& sizes, double* worst) {
  double sum = 0;
  *worst = 0;
  for (const uint64_t size : sizes) {
    const double error = std::abs(curve.HitRatio(size) - exact.HitRatio(size));
    sum += error;
    *worst = std::max(*worst, error);
  }
  return sum / static_cast<double>(sizes.size());
}

TEST(HitRateCurveTest, IsExactWhileEveryChunkIsFollowed) {
  HitRateCurve curve({.samples_max = 8192});
  ExactStack exact;
  for (const WorkloadRequest& request : Requests(1, 400)) {
    curve.Ask(request.chain);
    exact.Ask(request.chain);
  }
  ASSERT_GT(exact.different(), 500U);
  EXPECT_EQ(curve.stands_for(), 1U);
  EXPECT_EQ(curve.samples(), exact.different());
  for (uint64_t size = 1; size < 3000; size += 1 + size / 7) {
    const uint64_t end = ExactStack::EndOfBucket(size);
    EXPECT_NEAR(curve.HitRatio(end), exact.HitRatio(end), 1e-12) << end;
    // Inside a bucket it lies between the bucket's ends.
    EXPECT_LE(curve.HitRatio(size), exact.HitRatio(end) + 1e-12) << size;
    EXPECT_GE(curve.HitRatio(size), exact.HitRatio(size - size / 16 - 1) - 1e-12) << size;
  }
}

TEST(HitRateCurveTest, HitsAreLeadingChunksOfAPrompt) {
  HitRateCurve curve({});
  std::vector<ChainKey> chain;
  for (uint64_t i = 0; i < 12; ++i) chain.push_back(TestKey({1, 1}, i));
  curve.Ask(chain);
  curve.Ask(chain);
  for (uint64_t size = 0; size <= 14; ++size) {
    EXPECT_NEAR(curve.HitRatio(size), static_cast<double>(std::min<uint64_t>(size, 12)) / 24,
                1e-12);
  }
}

TEST(HitRateCurveTest, WhatIsStoredIsThereWhenItIsAskedFor) {
  std::vector<ChainKey> chain;
  for (uint64_t i = 0; i < 6; ++i) chain.push_back(TestKey({1, 1}, i));
  HitRateCurve curve({});
  curve.Ask(std::span(chain).first(2));
  curve.Store(chain);
  EXPECT_EQ(curve.asked(), 2);
  EXPECT_EQ(curve.HitRatio(100), 0);
  curve.Ask(chain);
  EXPECT_EQ(curve.asked(), 8);
  EXPECT_DOUBLE_EQ(curve.HitRatio(6), 6.0 / 8);
  EXPECT_DOUBLE_EQ(curve.HitRatio(5), 5.0 / 8);
}

TEST(HitRateCurveTest, FewSamplesOfRandomTrafficAreClose) {
  for (const uint64_t seed : {1U, 2U, 3U}) {
    HitRateCurve curve({.samples_max = 1024});
    ExactStack exact;
    for (const auto& chain : RandomChains(seed, 12'000)) {
      curve.Ask(chain);
      exact.Ask(chain);
    }
    ASSERT_GT(exact.different(), 4000U);
    EXPECT_GE(curve.stands_for(), 4U);
    double worst = 0;
    const double mean = MeanError(curve, exact, {125, 250, 500, 1000, 2000, 4000, 8000}, &worst);
    EXPECT_LT(mean, 1 / std::sqrt(1024)) << seed;
    EXPECT_LT(worst, 1.5 / std::sqrt(1024)) << seed;
  }
}

TEST(HitRateCurveTest, FewSamplesOfATraceAreClose) {
  std::ifstream file(KVASIR_REPLAY_DATA "/synthetic.jsonl");
  const auto trace = replay::Trace::Read(file, 512);
  ASSERT_TRUE(trace.ok()) << trace.status();
  HitRateCurve all({.samples_max = 8192}), few({.samples_max = 1024});
  ExactStack exact;
  for (size_t i = 0; i < trace->requests(); ++i) {
    const Request request = trace->request(i);
    for (HitRateCurve* const curve : {&all, &few}) curve->Ask(request.chain);
    exact.Ask(request.chain);
  }
  EXPECT_EQ(all.stands_for(), 1U);
  EXPECT_GE(few.stands_for(), 8U);
  const std::vector<uint64_t> sizes = {61, 122, 306, 612, 1224, 2448, 4896};
  double worst = 0;
  EXPECT_LT(MeanError(all, exact, sizes, &worst), 0.001);
  const double mean = MeanError(few, exact, sizes, &worst);
  EXPECT_LT(mean, 0.02);
  EXPECT_LT(worst, 0.03);
}

// A chunk that everybody asks for is followed or not; what it weighs is known all the same.
TEST(HitRateCurveTest, AHotChunkDoesNotBendTheCurve) {
  for (const uint64_t hot_high : {uint64_t{0}, ~uint64_t{0}}) {  // followed last, dropped first
    HitRateCurve curve({.samples_max = 512});
    uint64_t fresh = 0;
    for (int i = 0; i < 20'000; ++i) {
      const ChainKey chain[] = {{1, hot_high}, TestKey({2, 2}, fresh++)};
      curve.Ask(chain);
    }
    EXPECT_GE(curve.stands_for(), 32U);
    EXPECT_NEAR(curve.HitRatio(1000), 0.5, 0.05) << hot_high;
  }
}

TEST(HitRateCurveTest, OldChunksAreForgottenSoThatSizesOfInterestKeepTheirSamples) {
  HitRateCurve curve({.samples_max = 1024, .chunks_max = 2000});
  ExactStack exact;
  uint64_t fresh = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<ChainKey> chain;
    for (uint64_t block = 0; block < 20; ++block) chain.push_back(TestKey({3, 3}, fresh++));
    curve.Ask(chain);
    if (i % 3 == 0) {
      curve.Ask(std::span(chain).first(10));
    }
  }
  EXPECT_LE(curve.stands_for(), 4U);  // of 60,000 different ones
  EXPECT_GE(curve.samples(), 400U);
  EXPECT_NEAR(curve.HitRatio(2000), 1.0 / 7, 0.02);
}

TEST(HitRateCurveTest, ThePastCountsLess) {
  HitRateCurve curve({.asked_half = 1000});
  uint64_t fresh = 0;
  const auto ask_fresh = [&] {
    const ChainKey chain[] = {TestKey({4, 4}, fresh++)};
    curve.Ask(chain);
  };
  for (int i = 0; i < 5000; ++i) ask_fresh();
  EXPECT_EQ(curve.HitRatio(100), 0);
  const ChainKey again[] = {TestKey({5, 5}, 1)};
  for (int i = 0; i < 5000; ++i) curve.Ask(again);
  EXPECT_GT(curve.HitRatio(100), 0.98);
  EXPECT_LE(curve.asked(), 1000);
}

TEST(HitRateCurveTest, ClearForgetsEverything) {
  HitRateCurve curve({.samples_max = 64}), fresh({.samples_max = 64, .chunks_max = 5000});
  for (const auto& chain : RandomChains(1, 2000)) curve.Ask(chain);
  EXPECT_GT(curve.stands_for(), 1U);
  curve.Clear(5000);
  EXPECT_EQ(curve.stands_for(), 1U);
  EXPECT_EQ(curve.samples(), 0U);
  EXPECT_EQ(curve.asked(), 0);
  EXPECT_EQ(curve.chunks_max(), 5000U);
  for (const auto& chain : RandomChains(2, 2000)) {
    curve.Ask(chain);
    fresh.Ask(chain);
  }
  for (const uint64_t size : {10U, 100U, 1000U, 5000U}) {
    EXPECT_EQ(curve.HitRatio(size), fresh.HitRatio(size)) << size;
  }
}

TEST(HitRateCurveTest, MemoryIsBoundedHoweverMuchIsAskedFor) {
  HitRateCurve curve({});
  EXPECT_LT(curve.MetadataBytes(), 5000U);  // nothing was asked for
  std::mt19937_64 random(1);
  std::vector<ChainKey> chain(50'000);
  for (int i = 0; i < 20; ++i) {
    for (ChainKey& key : chain) key = {random(), random()};
    curve.Ask(chain);
    curve.Store(chain);
    EXPECT_LE(curve.samples(), 8192U);
  }
  EXPECT_GE(curve.samples(), 2048U);
  EXPECT_LE(curve.MetadataBytes(), 600U << 10);
}

}  // namespace
}  // namespace kvasir::eviction
