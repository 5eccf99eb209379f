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
#include "policies/sep_static.h"
#include "policies/sep_stream.h"
#include "tests/policies/policy_simulator.h"
#include "tests/policies/shadowed_policy.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using testing::Model;
using testing::SeenKeys;
using testing::ShadowedPolicy;
using testing::Simulator;
using testing::SimulatorOptions;

// One random setting: the spec, its context, and the model of the same setting.
struct Case {
  std::string spec;
  PolicyContext context;
  Model model;
};

// Keys in cache order; distance in the cache, or between the rows.
SeenKeys Keys(const std::vector<uint64_t>& rows, bool in_cache) {
  SeenKeys keys;
  for (size_t i = 0; i < rows.size(); ++i) {
    keys.push_back({rows[i], in_cache ? rows.size() - 1 - i : rows.back() - rows[i]});
  }
  return keys;
}

Model RuleModel(std::function<bool(uint64_t, uint64_t, TokenId)> sees, bool in_cache) {
  return [=](const std::vector<TokenId>& ids) {
    std::vector<SeenKeys> all;
    for (uint64_t i = 0; i < ids.size(); ++i) {
      std::vector<uint64_t> rows;
      for (uint64_t j = 0; j <= i; ++j) {
        if (sees(i, j, ids[j])) rows.push_back(j);
      }
      all.push_back(Keys(rows, in_cache));
    }
    return all;
  };
}

Model StreamModel(const SepStreamConfig& config, uint64_t prompt_rows, bool in_cache) {
  return [=](const std::vector<TokenId>& ids) {
    SepStream stream(config);
    std::vector<SeenKeys> all;
    const bool sepcache = config.variant == SepStreamVariant::kSepCache;
    uint64_t at = 0;
    if (sepcache) {
      at = std::min<uint64_t>(prompt_rows, ids.size());
      std::vector<uint64_t> rows;
      for (uint64_t i = 0; i < at; ++i) {
        rows.push_back(i);
        all.push_back(Keys(rows, in_cache));
      }
      const std::vector<TokenId> prompt(ids.begin(), ids.begin() + static_cast<int64_t>(at));
      EXPECT_TRUE(stream.Step({{prompt}}, true).ok());
    }
    for (; at < ids.size(); ++at) {
      std::vector<uint64_t> rows = stream.KeptRows(0);
      rows.push_back(at);
      EXPECT_TRUE(stream.Step({{{ids[at]}}}, false).ok());
      if (sepcache) rows = stream.KeptRows(0);
      all.push_back(Keys(rows, in_cache));
    }
    return all;
  };
}

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  uint64_t Between(uint64_t low, uint64_t high) { return low + random_() % (high - low + 1); }
  bool Coin() { return Between(0, 1) == 1; }

 private:
  std::mt19937_64 random_;
};

Case FullCase(Dice&) {
  return {"full", {}, RuleModel([](uint64_t, uint64_t, TokenId) { return true; }, false)};
}

// What is left of the prompt after the selection is a prompt of its own: all of it stays.
Case GemFilterCase(Dice& dice) {
  Case test = FullCase(dice);
  test.spec = fmt::format("gemfilter:topk={}", dice.Between(1, 100));
  return test;
}

Case StreamingLlmCase(Dice& dice) {
  const uint64_t start = dice.Between(0, 20);
  const uint64_t recent = dice.Between(1, 90);
  const bool in_cache = dice.Coin();
  return {fmt::format("streamingllm:start_size={},recent_size={},positions={}", start, recent,
                      in_cache ? "in_cache" : "original"),
          {},
          RuleModel([=](uint64_t i, uint64_t j, TokenId) { return j < start || i - j < recent; },
                    in_cache)};
}

Case StaticCase(Dice& dice) {
  SepStaticConfig config;
  config.init = dice.Between(0, 6);
  config.window = dice.Between(1, dice.Coin() ? 5 : 90);
  config.prefill_window = dice.Coin() ? config.window : dice.Between(1, 90);
  config.prefill_len = dice.Between(0, 200);
  config.separators = SeparatorSet({1, 2});
  Case result;
  result.spec = fmt::format("sepllm:init_cache_size={},local_size={}", config.init, config.window);
  if (config.prefill_window != config.window) {
    result.spec += fmt::format(",prefill_local_size={}", config.prefill_window);
  }
  result.context.separators = {1, 2};
  result.context.prompt_rows = config.prefill_len;
  const SepStaticRule rule(config, {});
  // Kept and sticky rows come before the window: initial rows and separators are the older ones.
  result.model =
      RuleModel([rule](uint64_t i, uint64_t j, TokenId id) { return rule.Sees(i, j, id); }, false);
  return result;
}

Case StreamCase(Dice& dice, bool manager) {
  SepStreamConfig config;
  config.variant = manager ? SepStreamVariant::kManager : SepStreamVariant::kSepCache;
  config.a = static_cast<int64_t>(dice.Between(0, 6));
  config.s = static_cast<int64_t>(dice.Between(1, 20));
  config.w = static_cast<int64_t>(dice.Between(1, dice.Coin() ? 4 : 50));
  config.c = config.a + config.s + config.w + static_cast<int64_t>(dice.Between(1, 40));
  config.accumulate = dice.Between(0, 3) != 0;
  config.use_max = dice.Between(0, 3) != 0;
  config.separators = SeparatorSet({1, 2});
  const bool in_cache = dice.Coin();
  Case result;
  result.spec = fmt::format(
      "sepllm:form={},init_cache_size={},sep_cache_size={},local_size={},cache_size={},"
      "sep_accumulation={},use_max_sep_cache={},positions={}",
      manager ? "manager" : "sepcache", config.a, config.s, config.w, config.c, config.accumulate,
      config.use_max, in_cache ? "in_cache" : "original");
  result.context.separators = {1, 2};
  result.context.prompt_rows = dice.Between(0, 150);
  result.model = StreamModel(config, result.context.prompt_rows, in_cache);
  return result;
}

const char* RandomPositions(Dice& dice) { return dice.Coin() ? "original" : "unrotated"; }

Case FixLlmCase(Dice& dice) {
  const uint64_t init = dice.Between(0, 6);
  const uint64_t local = dice.Between(1, dice.Coin() ? 5 : 90);
  const uint64_t delta = dice.Between(1, 9);
  return {fmt::format("fixllm:init_cache_size={},local_size={},delta={},positions={}", init, local,
                      delta, RandomPositions(dice)),
          {},
          RuleModel(
              [=](uint64_t i, uint64_t j, TokenId) {
                return j < init || i - j < local || (j - init) % delta == delta - 1;
              },
              false)};
}

// Any of the rules, in any number, before a window.
Case WindowCase(Dice& dice) {
  const uint64_t sinks = dice.Between(0, 5);
  const uint64_t stride = dice.Between(0, 7);
  const uint64_t start = dice.Between(0, 20);
  const bool separators = dice.Coin();
  const uint64_t size = dice.Between(1, dice.Coin() ? 5 : 90);
  Case result;
  if (sinks > 0) result.spec += fmt::format("sinks:size={}|", sinks);
  if (separators) result.spec += "separators:ids=1/2|";
  if (stride > 0) result.spec += fmt::format("stride:start={},size={}|", start, stride);
  result.spec += fmt::format("window:size={},positions={}", size, RandomPositions(dice));
  result.model = RuleModel(
      [=](uint64_t i, uint64_t j, TokenId id) {
        const bool is_separator = separators && (id == 1 || id == 2);
        const bool on_stride = stride > 0 && j >= start && (j - start) % stride == stride - 1;
        return j < sinks || is_separator || on_stride || i - j < size;
      },
      false);
  return result;
}

// What is in view without a lookup: initial rows, the remainder and the window.
Case InfLlmCase(Dice& dice) {
  const uint64_t init = dice.Between(0, 20);
  const uint64_t local = dice.Between(2, 60);
  const uint64_t block = dice.Between(1, 40);
  Case test;
  test.spec =
      fmt::format("infllm:n_init={},n_local={},block_size={},repr_topk=1,exc_block_size=1", init,
                  local, block);
  test.model = [=](const std::vector<TokenId>& ids) {
    std::vector<SeenKeys> all;
    for (uint64_t i = 0; i < ids.size(); ++i) {
      uint64_t sealed_end = init;
      while (sealed_end + block + local <= i) sealed_end += block;
      const bool any = sealed_end > init;
      SeenKeys keys;
      for (uint64_t j = 0; j <= i; ++j) {
        if (any && j >= init && j < sealed_end) continue;
        keys.push_back({j, i - j < local ? i - j : local - 1});
      }
      all.push_back(std::move(keys));
    }
    return all;
  };
  return test;
}

struct Kind {
  const char* name;
  std::function<Case(Dice&)> make;
};

const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = {
      {"full", FullCase},
      {"streamingllm", StreamingLlmCase},
      {"sepllm static", StaticCase},
      {"sepllm sepcache", [](Dice& dice) { return StreamCase(dice, false); }},
      {"sepllm manager", [](Dice& dice) { return StreamCase(dice, true); }},
      {"fixllm", FixLlmCase},
      {"window", WindowCase},
      {"gemfilter", GemFilterCase},
      {"infllm", InfLlmCase},
  };
  return kinds;
}

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
