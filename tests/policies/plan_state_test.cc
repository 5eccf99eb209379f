// Plans as bytes: those of every policy come back as they were, and a stranger's are refused or fit
// a lane of so many rows.
#include "policies/plan_state.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/state_codec.h"
#include "tests/policies/policy_walk.h"
#include "tests/policies/state_subjects.h"

namespace kvasir {
namespace {

using testing::Dice;
using ::testing::HasSubstr;
using testing::Subject;
using testing::SubjectKind;
using testing::SubjectKinds;
using testing::TextOf;

constexpr StateFormat kFormat{"KVRETPLN", 1, uint64_t{64} << 20, "plan", "class"};

// Plans of a policy over a random text, with the number of rows at which each was returned.
std::vector<std::pair<RetentionPlan, uint64_t>> PlansOf(const Subject& subject, uint64_t seed) {
  Dice dice(seed);
  const auto policy = subject.Make();
  std::vector<std::pair<RetentionPlan, uint64_t>> plans;
  while (policy->rows() < 600) {
    while (std::optional<RetentionPlan> plan = policy->NextPlan({16, dice.Between(0, 150)})) {
      plans.emplace_back(*std::move(plan), policy->rows());
    }
    if (policy->Waiting() != nullptr) break;
    std::vector<TokenId> ids(1 + dice.Between(0, 20));
    for (TokenId& id : ids) id = static_cast<TokenId>(dice.Between(0, 11));
    policy->Append(ids);
  }
  return plans;
}

TEST(PlanStateTest, ThePlansOfEveryPolicyComeBackAsTheyWere) {
  for (const SubjectKind& kind : SubjectKinds()) {
    uint64_t plans = 0;
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      Dice dice(seed);
      const Subject subject = kind.make(dice);
      for (const auto& [plan, rows] : PlansOf(subject, seed)) {
        const std::string saved = SavePlan(plan);
        const absl::StatusOr<RetentionPlan> loaded = LoadPlan(saved, rows);
        ASSERT_TRUE(loaded.ok()) << loaded.status() << " " << subject.spec << " " << TextOf(plan);
        ASSERT_EQ(TextOf(*loaded), TextOf(plan));
        ++plans;
      }
    }
    EXPECT_GE(plans, 10U) << kind.name;
  }
}

// One of everything.
RetentionPlan FullPlan() {
  RetentionPlan plan;
  plan.from_row = 50;
  plan.until_row = 90;
  plan.recent_first = 40;
  plan.window = 20;
  plan.drop = {0, 3};
  plan.append = {{30, 2}, {31, 31}};
  plan.spans = {{4, -7, 20}, {5, 3, kNoRow}};
  plan.sticky = {41, 44};
  plan.seal_first = 10;
  plan.seal_last = 20;
  plan.record_first = 32;
  plan.record_last = 40;
  plan.records_from = 8;
  plan.far_position = 19;
  return plan;
}

RetentionPlan KeepPlan() {
  RetentionPlan plan;
  plan.from_row = plan.recent_first = 40;
  plan.keep = {{0, 2, 39}, {1, 2, 3}};
  plan.spans = {{3, 0, kNoRow}};
  return plan;
}

TEST(PlanStateTest, EveryFieldIsPartOfIt) {
  for (const RetentionPlan& plan : {RetentionPlan(), FullPlan(), KeepPlan()}) {
    const absl::StatusOr<RetentionPlan> loaded = LoadPlan(SavePlan(plan), 60);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(TextOf(*loaded), TextOf(plan));
  }
}

TEST(PlanStateTest, WhatContradictsItselfIsNamed) {
  struct Wrong {
    const char* message;
    void (*spoil)(RetentionPlan&);
  };
  const Wrong wrongs[] = {
      {"until_row=50 min=51", [](RetentionPlan& p) { p.until_row = 50; }},
      {"recent_first=61 min=0 max=60", [](RetentionPlan& p) { p.recent_first = 61; }},
      {"seal_last=9 min=10 max=40", [](RetentionPlan& p) { p.seal_last = 9; }},
      {"record_last=41 min=32 max=40", [](RetentionPlan& p) { p.record_last = 41; }},
      {"records_from=41 min=0 max=40", [](RetentionPlan& p) { p.records_from = 41; }},
      {"drop=3 after=3",
       [](RetentionPlan& p) {
         p.drop = {3, 3};
       }},
      {"row=40 min=0 max=39", [](RetentionPlan& p) { p.append[0].row = 40; }},
      {"span_count=0 min=1", [](RetentionPlan& p) { p.spans[0].count = 0; }},
      {"span_count=281474976710652 min=1 max=281474976710651",
       [](RetentionPlan& p) {
         p.spans[0].count = 5;
         p.spans[1].count = (uint64_t{1} << 48) - 4;
       }},
      {"sticky_row=60 min=42 max=59", [](RetentionPlan& p) { p.sticky[1] = 60; }},
      {"sticky_row=41 min=42 max=59", [](RetentionPlan& p) { p.sticky[1] = 41; }},
      {"edits the kept rows in two ways", [](RetentionPlan& p) { p.keep = {{1}}; }},
  };
  for (const Wrong& wrong : wrongs) {
    RetentionPlan plan = FullPlan();
    wrong.spoil(plan);
    const absl::Status status = LoadPlan(SavePlan(plan), 60).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << wrong.message;
    EXPECT_THAT(MessageOf(status), HasSubstr(wrong.message));
  }
  RetentionPlan keep = KeepPlan();
  keep.keep[1] = {1, 2};
  EXPECT_THAT(MessageOf(LoadPlan(SavePlan(keep), 60).status()), HasSubstr("keep=2 other=3"));
  keep.keep[1] = {1, 3, 2};
  EXPECT_THAT(MessageOf(LoadPlan(SavePlan(keep), 60).status()), HasSubstr("keep_entry=2 after=3"));
}

TEST(PlanStateTest, ForgedBytesAreRefusedOrReadAsTheyAre) {
  for (const RetentionPlan& plan : {FullPlan(), KeepPlan()}) {
    const std::string saved = SavePlan(plan);
    const std::string body(OpenState(kFormat, "", saved).value());
    for (size_t at = 0; at < saved.size(); ++at) {
      EXPECT_FALSE(LoadPlan(saved.substr(0, at), 60).ok()) << at;
      std::string damaged = saved;
      damaged[at] = static_cast<char>(damaged[at] ^ 8);
      EXPECT_FALSE(LoadPlan(damaged, 60).ok()) << at;
    }
    for (size_t at = 0; at < body.size(); ++at) {
      EXPECT_FALSE(LoadPlan(SealState(kFormat, "", body.substr(0, at)), 60).ok()) << at;
      for (int bit = 0; bit < 8; ++bit) {
        std::string forged = body;
        forged[at] = static_cast<char>(forged[at] ^ (1 << bit));
        const std::string state = SealState(kFormat, "", forged);
        const absl::StatusOr<RetentionPlan> loaded = LoadPlan(state, 60);
        if (loaded.ok()) {
          EXPECT_EQ(SavePlan(*loaded), state) << at;
        }
      }
    }
  }
  const std::string policy = Subject{"full", {}}.Make()->SaveState().value();
  EXPECT_THAT(MessageOf(LoadPlan(policy, 60).status()), HasSubstr("no plan"));
}

}  // namespace
}  // namespace kvasir
