// The invariants of return-hazard after every call, and what its rules say in single cases.
#include "eviction/return_hazard.h"

#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eviction/learned_state.h"
#include "tests/eviction/workload.h"

namespace kvasir::eviction {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<ReturnHazard> Make(uint32_t capacity, const ReturnHazardOptions& options = {}) {
  auto policy = ReturnHazard::Make(capacity, options);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return std::move(policy).value();
}

std::vector<ChainKey> Chain(uint64_t number, size_t blocks, std::vector<ChainKey> chain = {}) {
  while (chain.size() < blocks) {
    chain.push_back(TestKey(chain.empty() ? ChainKey{number, 0} : chain.back(), number));
  }
  return chain;
}

TEST(ReturnHazardTest, InvariantsHoldAfterEveryRequest) {
  for (const double ghost_factor : {0.0, 1.0, 8.0}) {
    for (const uint32_t capacity : {1U, 5U, 40U, 300U}) {
      ReturnHazardOptions options;
      options.ghost_factor = ghost_factor;
      auto policy = Make(capacity, options);
      Workload workload(capacity);
      std::vector<Eviction> evicted;
      for (int i = 0; i < 1200; ++i) {
        const WorkloadRequest request = workload.Next();
        ASSERT_TRUE(Serve(*policy, request.View(), evicted).ok());
        const absl::Status status = policy->CheckInvariants();
        ASSERT_TRUE(status.ok()) << "request " << i << ": " << status;
      }
      EXPECT_EQ(policy->resident(), capacity);
    }
  }
}

// Sequences that begin, grow and end in any order, and a clock that jumps both ways.
TEST(ReturnHazardTest, InvariantsHoldWhileSequencesOverlap) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    ReturnHazardOptions options;
    options.ghost_factor = seed % 3 == 0 ? 0 : 2;
    options.trunk_kids = 4;
    options.relearn_every = 7;
    auto policy = Make(seed % 2 == 0 ? 30 : 70, options);
    std::mt19937_64 random(seed);
    Workload workload(seed);
    struct Running {
      SequenceId id;
      ChainKey last;
    };
    std::vector<Running> running;
    std::vector<Eviction> evicted;
    int64_t now = 0;
    for (int i = 0; i < 4000; ++i) {
      now += static_cast<int64_t>(random() % 4'000'000) - 500'000;
      if (random() % 400 == 0) now += 40'000'000'000;
      const uint64_t what = random() % 8;
      if (what < 3 && running.size() < 6) {
        const WorkloadRequest request = workload.Next();
        const auto admission = policy->Begin(
            {request.chain, request.last_partial && random() % 4 == 0, request.tokens_in, now},
            evicted);
        ASSERT_TRUE(admission.ok());
        running.push_back({admission->id, request.chain.back()});
      } else if (what < 6 && !running.empty()) {
        Running& one = running[random() % running.size()];
        // Few numbers: sequences that share a prefix often seal the same block.
        const ChainKey key = random() % 50 == 0 ? running[0].last : TestKey(one.last, random() % 2);
        const auto sealed = policy->Seal(one.id, key, random() % 9 == 0, now, evicted);
        if (sealed.ok()) one.last = key;
      } else if (what == 6 && !running.empty()) {
        const size_t at = random() % running.size();
        ASSERT_TRUE(policy->Complete(running[at].id, {random() % 100000, now}).ok());
        running.erase(running.begin() + static_cast<ptrdiff_t>(at));
      } else {
        policy->EvictOne(now);
      }
      const absl::Status status = policy->CheckInvariants();
      ASSERT_TRUE(status.ok()) << "seed " << seed << " step " << i << ": " << status;
    }
  }
}

TEST(ReturnHazardTest, OnlyLeavesGoAndThePartialBlockFirst) {
  auto policy = Make(8);
  std::vector<Eviction> evicted;
  const auto full = Chain(1, 4), partial = Chain(2, 4);
  ASSERT_TRUE(Serve(*policy, {full, false, 2048, 0, 0}, evicted).ok());
  ASSERT_TRUE(Serve(*policy, {partial, true, 2000, 0, 1000}, evicted).ok());
  const auto first = policy->EvictOne(2000);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->key, partial[3]);
  EXPECT_THAT(Explain(*first), HasSubstr("list=dead level=0 bucket=0 index="));
  // Then the older chain from its leaf to its root: nothing is learned yet.
  for (const size_t i : {3U, 2U, 1U, 0U}) {
    const auto next = policy->EvictOne(2000);
    ASSERT_TRUE(next.has_value());
    EXPECT_EQ(next->key, full[i]);
    EXPECT_THAT(Explain(*next), HasSubstr("list=cell level=12"));
  }
}

TEST(ReturnHazardTest, ABranchKeepsItsStem) {
  auto policy = Make(8);
  std::vector<Eviction> evicted;
  const auto left = Chain(1, 5);
  const auto right = Chain(2, 6, {left[0], left[1], left[2]});
  ASSERT_TRUE(Serve(*policy, {left, false, 2560, 0, 0}, evicted).ok());
  const auto second = Serve(*policy, {right, false, 3072, 0, 1'000'000}, evicted);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->prefix_hits, 3U);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(policy->EvictOne(2'000'000).has_value());
  EXPECT_EQ(policy->resident(), 3U);
  EXPECT_EQ(policy->Lookup(left).resident, 3U);
}

TEST(ReturnHazardTest, GhostsAreKnownAndBounded) {
  auto policy = Make(4);
  std::vector<Eviction> evicted;
  for (uint64_t i = 0; i < 30; ++i) {
    const auto chain = Chain(i, 4);
    const auto now = static_cast<int64_t>(i) * 1000;
    ASSERT_TRUE(Serve(*policy, {chain, false, 2048, 0, now}, evicted).ok());
    ASSERT_TRUE(policy->CheckInvariants().ok());
  }
  EXPECT_EQ(policy->index().size(), 4U + 8 * 4);
  EXPECT_EQ(policy->Lookup(Chain(25, 4)), (PrefixMatch{4, 0}));
  EXPECT_EQ(policy->Lookup(Chain(0, 4)), (PrefixMatch{0, 0}));
}

TEST(ReturnHazardTest, LearnsWhichKindComesBack) {
  // Long answers come back, short ones never do; a small cache should learn to keep the former.
  auto policy = Make(60);
  std::vector<Eviction> evicted;
  int64_t now = 0;
  uint64_t hits = 0, possible = 0;
  std::vector<std::vector<ChainKey>> waiting;
  for (uint64_t i = 0; i < 6000; ++i) {
    now += 1'000'000;
    const auto once = Chain(1'000'000 + i, 12);
    ASSERT_TRUE(Serve(*policy, {once, false, 6144, 0, now}, evicted).ok());
    waiting.push_back(Chain(2'000'000 + i, 1));
    ASSERT_TRUE(Serve(*policy, {waiting.back(), false, 512, 0, now}, evicted).ok());
    if (i >= 30) {
      const auto again = Serve(*policy, {waiting[i - 30], false, 512, 0, now}, evicted);
      if (i > 4000) hits += again->prefix_hits;
      if (i > 4000) ++possible;
    }
  }
  // By idle time alone none would be there: 13 blocks come in each second, 60 fit.
  EXPECT_GT(hits, possible * 9 / 10);
}

TEST(ReturnHazardTest, ARestoredStateActsAsTheSavedOne) {
  auto taught = Make(50);
  Workload lessons(11);
  std::vector<Eviction> evicted;
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(Serve(*taught, lessons.Next().View(), evicted).ok());
  }
  const std::string saved = taught->SaveLearned();
  EXPECT_NE(saved, Make(50)->SaveLearned());
  auto one = Make(50), two = Make(50);
  ASSERT_TRUE(one->RestoreLearned(saved).ok());
  EXPECT_EQ(one->SaveLearned(), saved);
  ASSERT_TRUE(two->RestoreLearned(one->SaveLearned()).ok());
  Workload workload(12);
  std::vector<Eviction> of_one, of_two;
  for (int i = 0; i < 500; ++i) {
    const WorkloadRequest request = workload.Next();
    ASSERT_TRUE(Serve(*one, request.View(), of_one).ok());
    ASSERT_TRUE(Serve(*two, request.View(), of_two).ok());
  }
  ASSERT_EQ(of_one.size(), of_two.size());
  for (size_t i = 0; i < of_one.size(); ++i) ASSERT_EQ(of_one[i].key, of_two[i].key);
}

TEST(ReturnHazardTest, DamagedStateIsRefusedWithTheFieldNamed) {
  HazardStatistics statistics{ReturnHazardOptions()};
  const std::string good = statistics.Save();
  ASSERT_EQ(good.size(), 8U + 8 * (3 + 72 + 2 * 8192));
  const auto message = [&](const std::string& bytes) {
    const absl::Status status = statistics.Restore(bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(statistics.Save(), good);  // all or nothing
    // Nor does a right envelope around it help.
    auto policy = Make(10);
    const std::string fresh = policy->SaveLearned();
    EXPECT_EQ(
        policy->RestoreLearned(SealLearned("return-hazard", std::string(8, '\0') + bytes)).code(),
        absl::StatusCode::kDataLoss);
    EXPECT_EQ(policy->SaveLearned(), fresh);
    return MessageOf(status);
  };
  const auto with = [&](size_t number, double value) {
    std::string bytes = good;
    const uint64_t bits = std::bit_cast<uint64_t>(value);
    for (size_t i = 0; i < 8; ++i) {
      bytes[8 + 24 + number * 8 + i] = static_cast<char>(bits >> 8 * i);
    }
    return bytes;
  };
  EXPECT_THAT(message(""), HasSubstr("bytes=0 expected="));
  EXPECT_THAT(message(good.substr(1)), HasSubstr("another size"));
  EXPECT_THAT(message(good + "x"), HasSubstr("another size"));
  std::string bytes = good;
  bytes[0] = 'X';
  EXPECT_THAT(message(bytes), HasSubstr("magic"));
  for (const auto& [at, field] : {std::pair{8, "version="}, {16, "buckets="}, {24, "numbers="}}) {
    bytes = good;
    bytes[static_cast<size_t>(at)] = 77;
    EXPECT_THAT(message(bytes), HasSubstr(field));
  }
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_THAT(message(with(0, nan)), HasSubstr("hit[0]=nan min=0"));
  EXPECT_THAT(message(with(35, -1)), HasSubstr("hit[35]=-1"));
  EXPECT_THAT(message(with(36, infinity)), HasSubstr("risk[0]=inf"));
  EXPECT_THAT(message(with(72, 2.6)), HasSubstr("beta[0]=2.6 min=-3 max=2.5"));
  EXPECT_THAT(message(with(72 + 8191, nan)), HasSubstr("beta[8191]"));
  EXPECT_THAT(message(with(72 + 8192, -0.1)), HasSubstr("evidence[0]"));
  EXPECT_THAT(message(with(72 + 2 * 8192 - 1, 1e300)), HasSubstr("evidence[8191]"));
}

TEST(ReturnHazardTest, OptionsAreChecked) {
  for (const ReturnHazardParameter& parameter : ReturnHazardParameters()) {
    for (const double value :
         {parameter.min - 1, parameter.max + 1, std::numeric_limits<double>::quiet_NaN()}) {
      ReturnHazardOptions options;
      options.*parameter.value = value;
      const auto policy = ReturnHazard::Make(10, options);
      ASSERT_FALSE(policy.ok()) << parameter.name;
      EXPECT_THAT(MessageOf(policy.status()), HasSubstr(std::string(parameter.name)));
    }
  }
  EXPECT_FALSE(ReturnHazard::Make(0, {}).ok());
  EXPECT_FALSE(ReturnHazard::Make(kCapacityMax + 1, {}).ok());
}

}  // namespace
}  // namespace kvasir::eviction
