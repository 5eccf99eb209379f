// What every eviction policy promises, whatever it evicts.
#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eviction/eviction_registry.h"
#include "eviction/fixed_policies.h"
#include "eviction/learned_state.h"
#include "tests/eviction/workload.h"

namespace kvasir::eviction {
namespace {

using ::testing::HasSubstr;

constexpr int kRequests = 600;

std::vector<WorkloadRequest> Requests(uint64_t seed) {
  Workload workload(seed);
  std::vector<WorkloadRequest> requests;
  for (int i = 0; i < kRequests; ++i) requests.push_back(workload.Next());
  return requests;
}

class EvictionConformanceTest : public ::testing::TestWithParam<std::string> {
 protected:
  bool belady() const { return GetParam() == kBelady; }

  std::unique_ptr<EvictionPolicy> Make(uint32_t capacity,
                                       const std::vector<WorkloadRequest>& future = {}) const {
    if (!belady()) return std::move(MakeEviction(GetParam(), capacity)).value();
    std::vector<ChainKey> accesses;
    for (const auto& request : future) {
      accesses.insert(accesses.end(), request.chain.begin(), request.chain.end());
    }
    return MakeBelady(capacity, NextUses(accesses), true);
  }

  // A chain of its own, for which a policy with a future is told that it comes again.
  static WorkloadRequest Chain(uint64_t number, size_t blocks) {
    WorkloadRequest request;
    ChainKey parent{number, number};
    for (size_t i = 0; i < blocks; ++i) request.chain.push_back(parent = TestKey(parent, i));
    return request;
  }

  static std::set<std::string> ResidentKeys(const EvictionPolicy& policy) {
    std::set<std::string> keys;
    for (BlockId block = 0; block < policy.index().handles(); ++block) {
      const BlockRecord& record = policy.index()[block];
      if (policy.index().Find(record.key) == block && record.resident) {
        keys.insert(record.key.ToHex());
      }
    }
    return keys;
  }
};

TEST_P(EvictionConformanceTest, CallerAndPolicyAgreeOnWhatIsThere) {
  const auto requests = Requests(1);
  for (const uint32_t capacity : {1U, 7U, 60U, 400U}) {
    auto policy = Make(capacity, requests);
    std::vector<Eviction> evicted;
    std::set<std::string> there;  // what a caller would hold
    for (const auto& request : requests) {
      const PrefixMatch before = policy->Lookup(request.chain);
      evicted.clear();
      const auto admission = Serve(*policy, request.View(), evicted);
      ASSERT_TRUE(admission.ok()) << admission.status();
      EXPECT_EQ(admission->known, before.known);
      EXPECT_EQ(admission->prefix_hits, before.resident);
      EXPECT_GE(admission->block_hits, admission->stored == 0 ? 0 : before.resident > 0 ? 1 : 0);
      for (const ChainKey& key : request.chain) there.insert(key.ToHex());
      for (const Eviction& eviction : evicted) {
        EXPECT_NE(std::string(eviction.reason.list), "");
        EXPECT_THAT(Explain(eviction), HasSubstr(eviction.key.ToHex()));
      }
      const auto resident = ResidentKeys(*policy);
      ASSERT_EQ(resident.size(), policy->resident());
      ASSERT_LE(policy->resident(), capacity);
      // Nothing is resident that the caller was not given, and what was evicted is gone unless the
      // same request brought it back.
      for (const std::string& key : resident) ASSERT_TRUE(there.count(key)) << key;
      EXPECT_GE(policy->Lookup(request.chain).resident, admission->stored);
      there = resident;
    }
    EXPECT_GT(policy->MetadataBytes(), policy->index().MetadataBytes());
  }
}

TEST_P(EvictionConformanceTest, EveryBlockThatGoesIsNamedOnce) {
  const auto requests = Requests(2);
  auto policy = Make(50, requests);
  std::vector<Eviction> evicted;
  for (const auto& request : requests) {
    const auto before = ResidentKeys(*policy);
    evicted.clear();
    ASSERT_TRUE(Serve(*policy, request.View(), evicted).ok());
    const auto after = ResidentKeys(*policy);
    std::multiset<std::string> named;
    for (const Eviction& eviction : evicted) named.insert(eviction.key.ToHex());
    for (const std::string& key : before) {
      ASSERT_EQ(named.count(key) > 0 && after.count(key) == 0, after.count(key) == 0) << key;
    }
    for (const std::string& key : named) ASSERT_TRUE(before.count(key)) << key;
  }
}

TEST_P(EvictionConformanceTest, SameCallsSameResults) {
  const auto requests = Requests(3);
  auto one = Make(45, requests), two = Make(45, requests);
  std::vector<Eviction> of_one, of_two;
  for (const auto& request : requests) {
    for (int i = 0; i < 3; ++i) one->Lookup(request.chain);  // has no effect
    ASSERT_TRUE(Serve(*one, request.View(), of_one).ok());
    ASSERT_TRUE(Serve(*two, request.View(), of_two).ok());
  }
  ASSERT_EQ(of_one.size(), of_two.size());
  ASSERT_GT(of_one.size(), 100U);
  for (size_t i = 0; i < of_one.size(); ++i) ASSERT_EQ(Explain(of_one[i]), Explain(of_two[i]));
}

TEST_P(EvictionConformanceTest, RunningSequencesKeepTheirBlocks) {
  auto requests = Requests(4);
  const WorkloadRequest mine = Chain(99, 20);
  std::vector<WorkloadRequest> future = {mine};
  future.insert(future.end(), requests.begin(), requests.end());
  future.push_back(mine);
  auto policy = Make(40, future);
  std::vector<Eviction> evicted;
  const auto admission = policy->Begin({mine.chain, false, 10240, 0}, evicted);
  ASSERT_TRUE(admission.ok());
  ASSERT_EQ(admission->stored, 20U);
  for (const auto& request : requests) {
    ASSERT_TRUE(Serve(*policy, request.View(), evicted).ok());
    ASSERT_EQ(policy->Lookup(mine.chain).resident, 20U);
  }
  while (policy->EvictOne(requests.back().now_us)) {
  }
  EXPECT_EQ(policy->resident(), 20U);
  EXPECT_EQ(policy->Lookup(mine.chain).resident, 20U);
  ASSERT_TRUE(policy->Complete(admission->id, {10300, requests.back().now_us}).ok());
  int gone = 0;
  while (policy->EvictOne(requests.back().now_us)) ++gone;
  EXPECT_EQ(gone, 20);
  EXPECT_EQ(policy->resident(), 0U);
}

// Pinned blocks stay whatever else runs, and nobody can tell from what is evicted, or from what was
// learned, that they were pinned meanwhile.
TEST_P(EvictionConformanceTest, PinnedBlocksStayAndTeachNothing) {
  const auto requests = Requests(5);
  const WorkloadRequest mine = Chain(98, 20);
  std::vector<WorkloadRequest> future = {mine};
  future.insert(future.end(), requests.begin(), requests.end());
  future.push_back(mine);
  auto policy = Make(40, future);
  const std::span<const ChainKey> chain = mine.chain;
  EXPECT_TRUE(policy->Pin(chain).empty());
  policy->Unpin({});
  std::vector<Eviction> evicted;
  ASSERT_TRUE(Serve(*policy, mine.View(), evicted).ok());
  const std::vector<ChainKey> all = policy->Pin(chain), some = policy->Pin(chain.first(12));
  for (const auto& request : requests) {
    ASSERT_TRUE(Serve(*policy, request.View(), evicted).ok());
    ASSERT_EQ(policy->Lookup(mine.chain).resident, 20U);
  }
  const int64_t end = requests.back().now_us;
  // A sequence on the same blocks comes and goes.
  const auto admission = policy->Begin({mine.chain, false, 10240, end}, evicted);
  ASSERT_TRUE(admission.ok());
  policy->Unpin(all);
  ASSERT_TRUE(policy->Complete(admission->id, {10300, end}).ok());
  while (policy->EvictOne(end)) {
  }
  EXPECT_EQ(policy->resident(), 12U);
  EXPECT_EQ(policy->Lookup(mine.chain).resident, 12U);
  policy->Unpin(some);
  int gone = 0;
  while (policy->EvictOne(end)) ++gone;
  EXPECT_EQ(gone, 12);
}

TEST_P(EvictionConformanceTest, APinIsNoUse) {
  const auto requests = Requests(6);
  auto pinned = Make(45, requests), plain = Make(45, requests);
  std::vector<Eviction> of_pinned, of_plain;
  int times = 0;
  for (const auto& request : requests) {
    const std::vector<ChainKey> held = pinned->Pin(request.chain);
    if (pinned->Lookup(request.chain).resident > 0) {
      EXPECT_FALSE(held.empty());
      ++times;
    }
    pinned->Unpin(held);
    ASSERT_TRUE(Serve(*pinned, request.View(), of_pinned).ok());
    ASSERT_TRUE(Serve(*plain, request.View(), of_plain).ok());
  }
  EXPECT_GT(times, 50);
  ASSERT_EQ(of_pinned.size(), of_plain.size());
  ASSERT_GT(of_pinned.size(), 100U);
  for (size_t i = 0; i < of_plain.size(); ++i) {
    ASSERT_EQ(Explain(of_pinned[i]), Explain(of_plain[i])) << i;
  }
  EXPECT_EQ(pinned->SaveLearned(), plain->SaveLearned());
}

TEST_P(EvictionConformanceTest, ARequestLargerThanTheCapacityIsStoredUpToIt) {
  const WorkloadRequest large = Chain(5, 30);
  auto policy = Make(12, {large, large});
  std::vector<Eviction> evicted;
  const auto admission = policy->Begin({large.chain, false, 15360, 0}, evicted);
  ASSERT_TRUE(admission.ok());
  EXPECT_EQ(admission->stored, 12U);
  EXPECT_EQ(policy->Lookup(large.chain).resident, 12U);
  EXPECT_TRUE(evicted.empty());
  EXPECT_FALSE(policy->EvictOne(0).has_value());
  // Nothing can be stored behind a block that is not.
  const auto sealed =
      policy->Seal(admission->id, TestKey(large.chain.back(), 1), false, 1, evicted);
  ASSERT_TRUE(sealed.ok());
  EXPECT_FALSE(*sealed);
  EXPECT_TRUE(policy->Complete(admission->id, {}).ok());
}

TEST_P(EvictionConformanceTest, SealedBlocksAreFoundBehindTheOthers) {
  WorkloadRequest all = Chain(6, 5);
  auto policy = Make(12, {all, all});
  std::vector<Eviction> evicted;
  const std::span<const ChainKey> chain = all.chain;
  const auto admission = policy->Begin({chain.first(3), false, 1536, 0}, evicted);
  ASSERT_TRUE(admission.ok());
  EXPECT_TRUE(*policy->Seal(admission->id, chain[3], false, 1, evicted));
  EXPECT_TRUE(*policy->Seal(admission->id, chain[4], true, 2, evicted));
  EXPECT_EQ(policy->Lookup(chain), (PrefixMatch{5, 5}));
  const auto behind = policy->Seal(admission->id, ChainKey{1, 1}, false, 3, evicted);
  EXPECT_EQ(behind.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(policy->Complete(admission->id, {2500, 4}).ok());
}

TEST_P(EvictionConformanceTest, IdsAreChecked) {
  const WorkloadRequest request = Chain(7, 2);
  auto policy = Make(4, {request, request});
  std::vector<Eviction> evicted;
  EXPECT_EQ(policy->Complete({}, {}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(policy->Complete({5, 0}, {}).code(), absl::StatusCode::kNotFound);
  const auto first = policy->Begin({request.chain, false, 1024, 0}, evicted);
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(policy->Complete(first->id, {}).ok());
  EXPECT_EQ(policy->Complete(first->id, {}).code(), absl::StatusCode::kNotFound);
  const auto second = policy->Begin({request.chain, false, 1024, 0}, evicted);
  EXPECT_EQ(policy->Seal(first->id, {}, false, 0, evicted).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(policy->Complete(second->id, {}).ok());
  const auto empty = policy->Begin({}, evicted);
  EXPECT_THAT(MessageOf(empty.status()), HasSubstr("blocks=0 min=1"));
}

TEST_P(EvictionConformanceTest, ChainsThatCannotBeDoNoHarm) {
  const WorkloadRequest good = Chain(8, 6);
  const WorkloadRequest other = Chain(9, 3);
  WorkloadRequest twice = other;
  twice.chain.push_back(other.chain[1]);
  WorkloadRequest grafted = Chain(10, 2);
  grafted.chain.push_back(good.chain[3]);
  WorkloadRequest skipping = good;
  skipping.chain.erase(skipping.chain.begin() + 2);
  const std::vector<WorkloadRequest> requests = {good, twice, grafted, skipping,
                                                 good, twice, grafted, skipping};
  auto policy = Make(9, requests);
  std::vector<Eviction> evicted;
  for (const WorkloadRequest& request : requests) {
    const auto admission = Serve(*policy, request.View(), evicted);
    ASSERT_TRUE(admission.ok());
    EXPECT_LE(admission->stored, request.chain.size());
    EXPECT_LE(policy->resident(), 9U);
    EXPECT_EQ(ResidentKeys(*policy).size(), policy->resident());
  }
  while (policy->EvictOne(0)) {
  }
  EXPECT_EQ(policy->resident(), 0U);
}

TEST_P(EvictionConformanceTest, ForeignLearnedStateIsRefused) {
  auto policy = Make(4);
  EXPECT_TRUE(policy->RestoreLearned(policy->SaveLearned()).ok());
  EXPECT_TRUE(policy->RestoreLearned("").ok());
  EXPECT_FALSE(policy->RestoreLearned("x").ok());
  EXPECT_THAT(MessageOf(policy->RestoreLearned(SealLearned("clock", "x"))),
              HasSubstr("another policy: eviction=" + GetParam()));
  for (const char* body : {"", "x", "12345678901"}) {
    EXPECT_FALSE(policy->RestoreLearned(SealLearned(GetParam(), body)).ok()) << body;
  }
}

// What is saved is all that an instance goes on from: one that went on from it says the same again,
// and two of them decide alike, also in a cache of another size.
TEST_P(EvictionConformanceTest, WhatWasLearnedIsTheSameInEachThatGoesOnFromIt) {
  const auto lessons = Requests(11), requests = Requests(12);
  auto taught = Make(60, lessons);
  std::vector<Eviction> evicted;
  for (const auto& lesson : lessons) ASSERT_TRUE(Serve(*taught, lesson.View(), evicted).ok());
  const std::string saved = taught->SaveLearned();
  EXPECT_LE(saved.size(), kLearnedBytesMax);
  EXPECT_EQ(saved, taught->SaveLearned());
  auto one = Make(60, requests), two = Make(60, requests), small = Make(7, requests);
  ASSERT_TRUE(one->RestoreLearned(saved).ok());
  EXPECT_EQ(one->SaveLearned(), saved);
  ASSERT_TRUE(two->RestoreLearned(one->SaveLearned()).ok());
  ASSERT_TRUE(small->RestoreLearned(saved).ok());
  std::vector<Eviction> of_one, of_two, of_small;
  for (const auto& request : requests) {
    ASSERT_TRUE(Serve(*one, request.View(), of_one).ok());
    ASSERT_TRUE(Serve(*two, request.View(), of_two).ok());
    ASSERT_TRUE(Serve(*small, request.View(), of_small).ok());
    ASSERT_LE(small->resident(), 7U);
  }
  ASSERT_EQ(of_one.size(), of_two.size());
  for (size_t i = 0; i < of_one.size(); ++i) ASSERT_EQ(Explain(of_one[i]), Explain(of_two[i]));
}

TEST_P(EvictionConformanceTest, DamagedLearnedStateIsRefusedAndChangesNothing) {
  auto taught = Make(20, Requests(13));
  std::vector<Eviction> evicted;
  for (const auto& lesson : Requests(13)) ASSERT_TRUE(Serve(*taught, lesson.View(), evicted).ok());
  const std::string saved = taught->SaveLearned();
  auto policy = Make(20);
  const std::string fresh = policy->SaveLearned();
  // Every byte of what is small; of the numbers in between one in many.
  const size_t step = std::max<size_t>(saved.size() / 1500, 1);
  for (size_t at = 0; at < saved.size(); at += at < 64 || at + 64 > saved.size() ? 1 : step) {
    std::string bytes = saved;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
    ASSERT_FALSE(policy->RestoreLearned(bytes).ok()) << at;
    const std::string cut = saved.substr(0, at);
    ASSERT_EQ(policy->RestoreLearned(cut).ok(), cut.empty()) << at;
  }
  EXPECT_FALSE(policy->RestoreLearned(saved + "x").ok());
  EXPECT_FALSE(policy->RestoreLearned(std::string(kLearnedBytesMax + 1, 'x')).ok());
  EXPECT_EQ(policy->SaveLearned(), fresh);
}

std::vector<std::string> AllNames() {
  std::vector<std::string> names(EvictionNames().begin(), EvictionNames().end());
  names.push_back(kBelady);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, EvictionConformanceTest, ::testing::ValuesIn(AllNames()),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(EvictionRegistryTest, RefusesWhatItDoesNotKnow) {
  const auto message = [](std::string_view spec, uint32_t capacity = 10) {
    const auto policy = MakeEviction(spec, capacity);
    return policy.ok() ? std::string() : MessageOf(policy.status());
  };
  EXPECT_THAT(message("clock"), HasSubstr("eviction=clock known=return-hazard,lru,"));
  EXPECT_THAT(message("lru:x=1"), HasSubstr("no parameters"));
  EXPECT_THAT(message("lru", 0), HasSubstr("capacity_blocks=0 min=1"));
  EXPECT_EQ(message("return-hazard:ghost_factor=4,old_quantile=0.95"), "");
  EXPECT_THAT(message("return-hazard:ghost_factor=65"), HasSubstr("ghost_factor=65 min=0 max=64"));
  EXPECT_THAT(message("return-hazard:ghost_factor=1.5"), HasSubstr("whole=true"));
  EXPECT_THAT(message("return-hazard:kappa=nan"), HasSubstr("kappa=nan min=0.1"));
  EXPECT_THAT(message("return-hazard:kappa"), HasSubstr("parameter=kappa"));
  EXPECT_THAT(message("return-hazard:kappa=5x"), HasSubstr("parameter=kappa=5x"));
  EXPECT_THAT(message("return-hazard:lambda=5"), HasSubstr("name=lambda known=ghost_factor,"));
}

}  // namespace
}  // namespace kvasir::eviction
