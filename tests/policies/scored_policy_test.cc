// The schedule and the bounds of ScoredPolicy, by hand.
#include "policies/scored_policy.h"

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class NoSelector final : public Selector {
 public:
  absl::StatusOr<std::vector<KeepSet>> Select(const ScoredRows& /*rows*/) const override {
    return InvalidArgument("not asked in this test");
  }
  std::string Description() const override { return "none"; }
};

ScoredPolicyConfig Config(ScoreSource source, uint64_t budget, uint64_t recent, uint64_t interval,
                          uint64_t prompt_rows) {
  ScoredPolicyConfig config;
  config.needs.source = source;
  config.selector = std::make_shared<NoSelector>();
  config.budget = budget;
  config.recent = recent;
  config.interval = interval;
  config.prompt_rows = prompt_rows;
  return config;
}

void Append(RetentionPolicy& policy, uint64_t rows) {
  policy.Append(std::vector<TokenId>(rows, 7));
}

KeepSet FirstOnes(uint32_t count) {
  KeepSet set(count);
  std::iota(set.begin(), set.end(), 0U);
  return set;
}

const PlanHorizon kHorizon;

TEST(ScoredPolicy, EveryStepAsThePaper) {
  ScoredPolicy policy(Config(ScoreSource::kAttentionMass, 3, 2, 1, 0));
  EXPECT_EQ(policy.Waiting(), nullptr);  // the initial table comes first
  EXPECT_EQ(policy.NextPlan(kHorizon)->until_row, 6u);
  Append(policy, 5);
  EXPECT_EQ(policy.Waiting(), nullptr);
  EXPECT_EQ(policy.DecisionRow(), 0u);
  for (uint64_t row = 6; row < 12; ++row) {
    Append(policy, 1);
    ASSERT_NE(policy.Waiting(), nullptr);
    EXPECT_EQ(policy.DecisionRow(), row);
    EXPECT_FALSE(policy.NextPlan(kHorizon).has_value());
    policy.Decide({{0, 1, 3}, {1, 2, 3}});
    const auto plan = policy.NextPlan(kHorizon);
    ASSERT_TRUE(plan.has_value());
    EXPECT_EQ(plan->from_row, row);
    EXPECT_EQ(plan->until_row, row + 1);
    EXPECT_EQ(plan->recent_first, row - 2);
    EXPECT_THAT(plan->keep, ElementsAre(KeepSet{0, 1, 3}, KeepSet{1, 2, 3}));
    EXPECT_FALSE(policy.NextPlan(kHorizon).has_value());
  }
}

TEST(ScoredPolicy, ThePromptEndsFirst) {
  ScoredPolicy policy(Config(ScoreSource::kAttentionMass, 3, 2, 4, 100));
  EXPECT_EQ(policy.NextPlan(kHorizon)->until_row, 100u);
  Append(policy, 100);
  policy.Decide({FirstOnes(3)});
  EXPECT_EQ(policy.NextPlan(kHorizon)->until_row, 104u);
}

TEST(ScoredPolicy, AShortPromptNeedsNoScores) {
  ScoredPolicy policy(Config(ScoreSource::kWindowQueries, 8, 2, 0, 10));
  EXPECT_EQ(policy.Needs().source, ScoreSource::kNone);
  EXPECT_EQ(policy.NextPlan(kHorizon)->until_row, kNoRow);
  Append(policy, 1000);
  EXPECT_EQ(policy.Waiting(), nullptr);
  EXPECT_EQ(policy.RollbackFloor(), 0u);
  ScoredPolicy longer(Config(ScoreSource::kWindowQueries, 8, 2, 0, 11));
  EXPECT_EQ(longer.Needs().source, ScoreSource::kWindowQueries);
  EXPECT_EQ(longer.Needs().kept_rows_max, 8u);
  EXPECT_EQ(longer.NextPlan(kHorizon)->until_row, 11u);
}

TEST(ScoredPolicy, AnEngineThatRanPastTheDecisionRowGetsTheSameDecisions) {
  ScoredPolicy policy(Config(ScoreSource::kKeyNorm, 3, 2, 4, 0));
  policy.NextPlan(kHorizon);
  Append(policy, 30);  // 9, 13, 17, ... have gone by
  for (uint64_t row = 9; row <= 29; row += 4) {
    ASSERT_NE(policy.Waiting(), nullptr);
    EXPECT_EQ(policy.DecisionRow(), row);
    policy.Decide({FirstOnes(3)});
    const auto plan = policy.NextPlan(kHorizon);
    EXPECT_EQ(plan->from_row, row);
    EXPECT_EQ(plan->recent_first, row - 2);
  }
  EXPECT_EQ(policy.Waiting(), nullptr);
}

TEST(ScoredPolicy, MassCannotBeTakenBack) {
  ScoredPolicy policy(Config(ScoreSource::kAttentionMass, 3, 2, 4, 0));
  policy.NextPlan(kHorizon);
  Append(policy, 5);
  EXPECT_EQ(policy.RollbackFloor(), 5u);
  const absl::Status status = policy.Truncate(4);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), HasSubstr("rows=4 rollback_floor=5"));
  EXPECT_TRUE(policy.Truncate(5).ok());
}

TEST(ScoredPolicy, ADecisionUnderWayIsTheFloor) {
  ScoredPolicy policy(Config(ScoreSource::kKeyNorm, 3, 2, 4, 0));
  policy.NextPlan(kHorizon);
  Append(policy, 8);
  EXPECT_EQ(policy.RollbackFloor(), 0u);
  EXPECT_TRUE(policy.Truncate(7).ok());
  Append(policy, 4);
  const auto selector = policy.Waiting();
  ASSERT_NE(selector, nullptr);
  EXPECT_EQ(policy.RollbackFloor(), 9u);
  EXPECT_TRUE(policy.Truncate(9).ok());
  EXPECT_EQ(policy.Waiting(), selector);
  policy.Decide({FirstOnes(3)});
  EXPECT_EQ(policy.NextPlan(kHorizon)->from_row, 9u);
  Append(policy, 3);
  EXPECT_EQ(policy.RollbackFloor(), 9u);
  EXPECT_EQ(policy.Truncate(8).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ScoredPolicyDeathTest, AChoiceOutsideTheRulesIsOurBug) {
  ScoredPolicy policy(Config(ScoreSource::kKeyNorm, 3, 2, 4, 0));
  policy.NextPlan(kHorizon);
  EXPECT_DEATH(policy.Decide({{0}}), "rows=0");
  Append(policy, 9);  // 7 candidates
  EXPECT_DEATH(policy.Decide({}), "no column");
  EXPECT_DEATH(policy.Decide({{0, 1, 2, 3}}), "budget=3");
  EXPECT_DEATH(policy.Decide({{0, 1}, {0}}), "other=1");
  EXPECT_DEATH(policy.Decide({{1, 1}}), "not ascending");
  EXPECT_DEATH(policy.Decide({{7}}), "candidates=7");
}

}  // namespace
}  // namespace kvasir
