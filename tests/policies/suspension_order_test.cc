// SuspensionOrder: worked examples, then what must hold of any order.
#include "policies/preemption/suspension_order.h"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir::preemption {
namespace {

using Order = std::vector<size_t>;

constexpr Rules kRules{30'000, 200};

Candidate Of(Hints hints, uint64_t response_rows, uint64_t opened, uint64_t age_s = 1) {
  return {hints, response_rows, 1000 * age_s, opened};
}

TEST(SuspensionOrderTest, WithoutHintsTheLatestGoesFirst) {
  const Candidate candidates[] = {Of({}, 0, 1), Of({}, 0, 3), Of({}, 0, 2)};
  EXPECT_EQ(SuspensionOrder(candidates, kRules), Order({1, 2, 0}));
}

TEST(SuspensionOrderTest, WhoHasMostToGoGoesFirst) {
  const Candidate candidates[] = {Of({0, 500}, 490, 1), Of({0, 100}, 10, 2), Of({0, 300}, 0, 3)};
  EXPECT_EQ(SuspensionOrder(candidates, kRules), Order({2, 1, 0}));
}

TEST(SuspensionOrderTest, APriorityComesBeforeLengths) {
  const Candidate candidates[] = {Of({5, 5000}, 0, 1), Of({-1, 10}, 0, 2), Of({0, 10}, 0, 3)};
  EXPECT_EQ(SuspensionOrder(candidates, kRules), Order({1, 2, 0}));
}

TEST(SuspensionOrderTest, WithoutAPredictionAResponseIsTypical) {
  // 150 of 200 rows to go, 300 of 300, 20 of 20.
  const Candidate candidates[] = {Of({}, 50, 1), Of({0, 300}, 0, 2), Of({0, 20}, 0, 3)};
  EXPECT_EQ(SuspensionOrder(candidates, kRules), Order({1, 0, 2}));
}

TEST(SuspensionOrderTest, RanksStandForLengths) {
  // As lengths 66, 200 and 333; the last one is predicted to have 250.
  const Candidate candidates[] = {Of({0, {}, 7}, 0, 1), Of({0, {}, 9}, 0, 2),
                                  Of({0, {}, 1000}, 0, 3), Of({0, 250}, 0, 4)};
  EXPECT_EQ(SuspensionOrder(candidates, kRules), Order({2, 3, 1, 0}));
}

TEST(SuspensionOrderTest, WhoseRequestsAreOldGoLast) {
  const Candidate candidates[] = {Of({-9, 9000}, 0, 1, 30), Of({9, 10}, 9, 2),
                                  Of({-9, 9000}, 0, 3, 60), Of({0, 10}, 9, 4)};
  EXPECT_EQ(SuspensionOrder(candidates, kRules), Order({3, 1, 0, 2}));
}

TEST(RemainingRowsTest, APredictionThatWasTooSmallIsDoubled) {
  EXPECT_EQ(RemainingRows(100, 0), 100u);
  EXPECT_EQ(RemainingRows(100, 99), 1u);
  EXPECT_EQ(RemainingRows(100, 100), 100u);
  EXPECT_EQ(RemainingRows(100, 450), 350u);
  EXPECT_EQ(RemainingRows(0, 0), 1u);
  EXPECT_GT(RemainingRows(1, UINT64_MAX), 0u);
  EXPECT_GT(RemainingRows(UINT64_MAX, 5), 0u);
}

TEST(SuspensionOrderTest, IsOneOrderOfAll) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 300; ++round) {
    std::vector<Candidate> candidates(random() % 40);
    for (size_t i = 0; i < candidates.size(); ++i) {
      Hints hints{static_cast<int32_t>(random() % 3) - 1};
      if (random() % 3 == 0) hints.predicted_rows = random() % 1000;
      if (!hints.predicted_rows && random() % 2 == 0) {
        hints.predicted_rank = static_cast<uint32_t>(random());
      }
      candidates[i] = Of(hints, random() % 1000, i, random() % 40);
    }
    const Order order = SuspensionOrder(candidates, kRules);
    Order sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 0; i < sorted.size(); ++i) ASSERT_EQ(sorted[i], i);
    ASSERT_EQ(sorted.size(), candidates.size());
    for (size_t i = 1; i < order.size(); ++i) {
      const Candidate &before = candidates[order[i - 1]], &after = candidates[order[i]];
      const bool starving_before = before.age_ms >= kRules.starving_after_ms;
      const bool starving_after = after.age_ms >= kRules.starving_after_ms;
      ASSERT_LE(starving_before, starving_after);
      if (starving_before) {
        ASSERT_LE(before.age_ms, after.age_ms);
      } else if (!starving_after) {
        ASSERT_LE(before.hints.priority, after.hints.priority);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::preemption
