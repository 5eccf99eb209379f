// Every registered policy against its slow model: visible keys and their distances at every row.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "policies/policy_registry.h"
#include "policies/sep_stream.h"
#include "tests/policies/policy_cases.h"
#include "tests/policies/policy_simulator.h"
#include "tests/policies/shadowed_policy.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using testing::ByState;
using testing::Case;
using testing::Dice;
using testing::Kind;
using testing::Kinds;
using testing::RuleModel;
using testing::ShadowedPolicy;
using testing::Simulator;
using testing::SimulatorOptions;
using testing::StreamModel;

std::unique_ptr<RetentionPolicy> Make(const Case& test) {
  absl::StatusOr<PolicyLanes> lanes = MakeLanes(test.spec, test.context);
  EXPECT_TRUE(lanes.ok()) << lanes.status();
  if (!lanes.ok()) return nullptr;
  return std::move(lanes->lanes.at(0));
}

SimulatorOptions RandomOptions(Dice& dice) {
  SimulatorOptions options;
  options.slots_per_block = uint32_t{1} << dice.Between(0, 7);  // also wider than the window
  options.lead_rows = dice.Between(0, 150);
  options.chunk_max = dice.Between(1, 100);
  options.plan_percent = static_cast<int>(dice.Between(0, 100));
  return options;
}

// Those that need scores have theirs in scored_conformance_test.
TEST(PolicyConformance, EveryPolicyWithoutScoresHasAModel) {
  PolicyContext context;
  context.separators = {1};
  context.prompt_rows = 1'000'000;
  for (const PolicyInfo& info : Policies()) {
    const auto lanes = MakeLanes(info.name, context);
    ASSERT_TRUE(lanes.ok()) << lanes.status();
    if (lanes->lanes.front()->Needs().source != ScoreSource::kNone) continue;
    EXPECT_TRUE(std::any_of(Kinds().begin(), Kinds().end(), [&](const Kind& kind) {
      return std::string(kind.name).rfind(info.name, 0) == 0;
    })) << info.name;
  }
}

TEST(PolicyConformance, EveryQuerySeesWhatTheModelSays) {
  for (const Kind& kind : Kinds()) {
    uint64_t edits = 0;
    for (uint64_t seed = 1; seed <= 25; ++seed) {
      Dice dice(seed);
      const Case test = kind.make(dice);
      SCOPED_TRACE(fmt::format("{} seed {}: {} prompt_rows {}", kind.name, seed, test.spec,
                               test.context.prompt_rows));
      const auto policy = Make(test);
      ASSERT_NE(policy, nullptr);
      Simulator simulator(policy.get(), RandomOptions(dice), seed);
      simulator.Run(test.model);
      if (HasFailure()) return;
      edits += simulator.tables().size() - 1;
    }
    if (std::string(kind.name) != "full" && std::string(kind.name) != "gemfilter") {
      EXPECT_GT(edits, 60u) << kind.name;
    }
  }
}

TEST(PolicyConformance, TruncatedRowsLeaveNoTrace) {
  for (const Kind& kind : Kinds()) {
    uint64_t truncations = 0;
    for (uint64_t seed = 1001; seed <= 1025; ++seed) {
      Dice dice(seed);
      const Case test = kind.make(dice);
      SCOPED_TRACE(fmt::format("{} seed {}: {} prompt_rows {}", kind.name, seed, test.spec,
                               test.context.prompt_rows));
      const auto policy = Make(test);
      ASSERT_NE(policy, nullptr);
      SimulatorOptions options = RandomOptions(dice);
      options.chunk_max = 100;
      options.truncate_percent = 25;
      Simulator simulator(policy.get(), options, seed);
      simulator.Run(test.model);
      if (HasFailure()) return;
      truncations += simulator.truncations();
    }
    EXPECT_GT(truncations, 60u) << kind.name;
  }
}

TEST(PolicyConformance, ASnapshotResumesAsIfNothingHadHappened) {
  for (const Kind& kind : Kinds()) {
    uint64_t resumed = 0;
    for (uint64_t seed = 2001; seed <= 2015; ++seed) {
      Dice dice(seed);
      const Case test = kind.make(dice);
      SCOPED_TRACE(fmt::format("{} seed {}: {} prompt_rows {}", kind.name, seed, test.spec,
                               test.context.prompt_rows));
      auto policy = Make(test);
      ASSERT_NE(policy, nullptr);
      ShadowedPolicy shadowed(std::move(policy), seed);
      SimulatorOptions options = RandomOptions(dice);
      options.truncate_percent = dice.Coin() ? 20 : 0;
      Simulator simulator(&shadowed, options, seed);
      simulator.Run(test.model);
      if (HasFailure()) return;
      resumed += shadowed.resumed();
    }
    EXPECT_GT(resumed, 60u) << kind.name;
  }
}

// The bytes of a policy are all that it goes on from, in another process.
TEST(PolicyConformance, ARestoredPolicyResumesAsIfNothingHadHappened) {
  for (const Kind& kind : Kinds()) {
    if (std::string(kind.name) == "infllm") continue;  // whose blocks are not its own
    uint64_t resumed = 0;
    for (uint64_t seed = 3001; seed <= 3010; ++seed) {
      Dice dice(seed);
      const Case test = kind.make(dice);
      SCOPED_TRACE(fmt::format("{} seed {}: {} prompt_rows {}", kind.name, seed, test.spec,
                               test.context.prompt_rows));
      auto policy = Make(test);
      ASSERT_NE(policy, nullptr);
      ShadowedPolicy shadowed(std::move(policy), seed, ByState([&test] { return Make(test); }));
      SimulatorOptions options = RandomOptions(dice);
      options.truncate_percent = dice.Coin() ? 20 : 0;
      Simulator simulator(&shadowed, options, seed);
      simulator.Run(test.model);
      if (HasFailure()) return;
      resumed += shadowed.resumed();
    }
    EXPECT_GT(resumed, 60u) << kind.name;
  }
}

TEST(PolicyConformance, AClonedPolicyGoesItsOwnWay) {
  for (const Kind& kind : Kinds()) {
    Dice dice(11);
    const Case test = kind.make(dice);
    const auto policy = Make(test);
    ASSERT_NE(policy, nullptr);
    policy->Append(std::vector<TokenId>(100, 1));
    const auto clone = policy->Clone();
    clone->Append(std::vector<TokenId>(50, 2));
    EXPECT_EQ(policy->rows(), 100u) << test.spec;
    EXPECT_EQ(clone->rows(), 150u) << test.spec;
  }
}

TEST(PolicyConformance, SameCallsGiveSamePlans) {
  for (const Kind& kind : Kinds()) {
    Dice dice(7);
    const Case test = kind.make(dice);
    const SimulatorOptions options = RandomOptions(dice);
    const auto first = Make(test);
    const auto second = Make(test);
    Simulator a(first.get(), options, 7);
    Simulator b(second.get(), options, 7);
    a.Run(test.model);
    b.Run(test.model);
    ASSERT_EQ(a.tables().size(), b.tables().size()) << test.spec;
    for (size_t i = 0; i < a.tables().size(); ++i) {
      EXPECT_EQ(a.tables()[i].kept, b.tables()[i].kept);
      EXPECT_EQ(a.tables()[i].plan.sticky, b.tables()[i].plan.sticky);
      EXPECT_EQ(a.tables()[i].plan.spans, b.tables()[i].plan.spans);
      EXPECT_EQ(a.tables()[i].plan.from_row, b.tables()[i].plan.from_row);
      EXPECT_EQ(a.tables()[i].plan.until_row, b.tables()[i].plan.until_row);
    }
  }
}

TEST(PolicyConformance, LayersOfALaneShareTheirSettings) {
  PolicyContext context;
  context.layers = 6;
  context.separators = {1, 2};
  const auto lanes = MakeLanes("sepllm:local_size=8x2/70/8x3,init_cache_size=2", context);
  ASSERT_TRUE(lanes.ok()) << lanes.status();
  EXPECT_EQ(lanes->lanes.size(), 2u);
  EXPECT_EQ(lanes->lane_of_layer, (std::vector<uint32_t>{0, 0, 1, 0, 0, 0}));
  const uint64_t windows[] = {8, 70};
  for (size_t lane = 0; lane < 2; ++lane) {
    const uint64_t window = windows[lane];
    Simulator simulator(lanes->lanes[lane].get(), SimulatorOptions(), lane);
    simulator.Run(
        RuleModel([=](uint64_t i, uint64_t j,
                      TokenId id) { return j < 2 || id == 1 || id == 2 || i - j < window; },
                  false));
  }
}

TEST(PolicyConformance, PaddingOfThePromptWidensTheInitialBlock) {
  SepStreamConfig config;
  config.a = 2;
  config.s = 4;
  config.w = 8;
  config.c = 600;  // above the prompt, so the offset never meets its bound
  config.pad_id = 0;
  config.separators = SeparatorSet({1, 2});
  Case test;
  test.spec = "sepllm:form=sepcache,init_cache_size=2,sep_cache_size=4,local_size=8,cache_size=600";
  test.context.separators = {1, 2};
  test.context.prompt_rows = 100;
  test.context.pad_id = 0;
  test.model = StreamModel(config, 100, false);
  const auto policy = Make(test);
  SimulatorOptions options;
  options.rows = 1500;
  Simulator simulator(policy.get(), options, 5);
  simulator.Run(test.model);
  EXPECT_GT(simulator.tables().back().kept.size(), 6u);
}

}  // namespace
}  // namespace kvasir
