// What a policy has learned, saved and restored: the same decisions, and hostile bytes refused.
#include "eviction/learned_state.h"

#include <bit>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/state_codec.h"
#include "eviction/eviction_registry.h"
#include "eviction/fixed_policies.h"
#include "tests/eviction/workload.h"

namespace kvasir::eviction {
namespace {

using ::testing::HasSubstr;

std::vector<WorkloadRequest> Requests(uint64_t seed) {
  Workload workload(seed);
  std::vector<WorkloadRequest> requests(600);
  for (WorkloadRequest& request : requests) request = workload.Next();
  return requests;
}

// Where nothing is remembered of single keys, one that goes on from what was saved decides as the
// one that saved it, once that has given everything up.
TEST(LearnedStateTest, DecidesAsTheOneThatWasSaved) {
  for (const char* spec : {"return-hazard:ghost_factor=0", "lru", "lfu", "s3-fifo"}) {
    SCOPED_TRACE(spec);
    auto old = std::move(MakeEviction(spec, 60)).value();
    std::vector<Eviction> evicted;
    const auto lessons = Requests(14);
    ASSERT_EQ(lessons.size() % 50, 0U);  // return-hazard has just relearned
    for (const auto& lesson : lessons) ASSERT_TRUE(Serve(*old, lesson.View(), evicted).ok());
    const std::string saved = old->SaveLearned();
    while (old->EvictOne(lessons.back().now_us)) {
    }
    auto restored = std::move(MakeEviction(spec, 60)).value();
    auto untaught = std::move(MakeEviction(spec, 60)).value();
    ASSERT_TRUE(restored->RestoreLearned(saved).ok());
    std::vector<Eviction> of_old, of_restored, of_untaught;
    for (WorkloadRequest request : Requests(15)) {
      for (ChainKey& key : request.chain) key.high ^= 1;  // none that was known
      request.now_us += lessons.back().now_us + 3'600'000'000;
      ASSERT_TRUE(Serve(*old, request.View(), of_old).ok());
      ASSERT_TRUE(Serve(*restored, request.View(), of_restored).ok());
      ASSERT_TRUE(Serve(*untaught, request.View(), of_untaught).ok());
    }
    const auto keys_of = [](const std::vector<Eviction>& evictions) {
      std::vector<std::string> keys;
      for (const Eviction& eviction : evictions) keys.push_back(Explain(eviction));
      return keys;
    };
    EXPECT_GT(of_old.size(), 100U);
    EXPECT_EQ(keys_of(of_restored), keys_of(of_old));
    EXPECT_EQ(keys_of(of_untaught) == keys_of(of_old), saved.empty());
  }
}

// The share of T1 decides which list gives a block up.
TEST(LearnedStateTest, ArcGoesOnWithItsShare) {
  const auto victim = [](const std::string& learned) {
    auto arc = MakeArc(10, true);
    EXPECT_TRUE(arc->RestoreLearned(learned).ok());
    std::vector<Eviction> evicted;
    for (uint64_t i = 0; i < 5; ++i) {  // five that were used twice, then five once
      const ChainKey chain[] = {{i, i}};
      for (int twice = 0; twice < 2; ++twice) {
        EXPECT_TRUE(Serve(*arc, {chain, false, 512, 0, 0}, evicted).ok());
      }
    }
    for (uint64_t i = 5; i < 11; ++i) {
      const ChainKey chain[] = {{i, i}};
      EXPECT_TRUE(Serve(*arc, {chain, false, 512, 0, 0}, evicted).ok());
    }
    EXPECT_EQ(evicted.size(), 1U);
    return std::string(evicted.front().reason.list);
  };
  const auto share = [](double value) {
    std::string body;
    AppendNumber(body, std::bit_cast<uint64_t>(value));
    return SealLearned("arc", body);
  };
  EXPECT_EQ(victim(""), "t1");
  EXPECT_EQ(victim(share(0.1)), "t1");
  EXPECT_EQ(victim(share(0.9)), "t2");
  auto arc = MakeArc(10, true);
  for (const double wrong : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(MessageOf(arc->RestoreLearned(share(wrong))), HasSubstr("min=0 max=1"));
  }
}

TEST(LearnedStateTest, TheEnvelopeIsChecked) {
  const std::string sealed = SealLearned("lru", "body");
  const auto opened = OpenLearned("lru", sealed);
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(*opened, "body");
  EXPECT_THAT(MessageOf(OpenLearned("lfu", sealed).status()), HasSubstr("eviction=lfu"));
  EXPECT_THAT(MessageOf(OpenLearned("lru", sealed.substr(0, 30)).status()), HasSubstr("min=40"));
  std::string damaged = sealed;
  damaged[20] ^= 1;
  EXPECT_THAT(MessageOf(OpenLearned("lru", damaged).status()), HasSubstr("checksum"));
}

}  // namespace
}  // namespace kvasir::eviction
