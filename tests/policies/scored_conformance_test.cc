// Every score-based policy of the registry, alone and behind rules, against its slow model: what
// each query of each column sees, for any chunking, with truncations, and resumed from snapshots.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/policy_registry.h"
#include "tests/policies/score_simulator.h"
#include "tests/policies/shadowed_policy.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using testing::ByState;
using testing::ClonePolicy;
using testing::ScoredModel;
using testing::ScoreOracle;
using testing::ScoreSimulator;
using testing::ScoreSimulatorOptions;
using testing::ShadowedPolicy;

struct Case {
  std::string spec;
  PolicyContext context;
  ScoredModel model;
  uint32_t group = 2;  // query heads of a kv head
};

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  uint64_t Between(uint64_t low, uint64_t high) { return low + random_() % (high - low + 1); }
  bool Coin() { return Between(0, 1) == 1; }

 private:
  std::mt19937_64 random_;
};

// Sinks by parameter, and rules in front.
void AddForced(Dice& dice, uint64_t room, Case* test) {
  const uint64_t start = dice.Coin() ? 0 : dice.Between(0, room);
  test->spec += fmt::format(",start_size={}", start);
  test->model.start_size = start;
  if (dice.Coin()) {
    test->spec = "separators:ids=1/2|" + test->spec;
    test->model.always = [](uint64_t, TokenId id) { return id == 1 || id == 2; };
  }
  if (dice.Coin()) {
    const uint64_t sinks = dice.Between(1, 6);
    test->spec = fmt::format("sinks:size={}|{}", sinks, test->spec);
    test->model.start_size = std::max(start, sinks);
  }
}

void AddHeads(Dice& dice, Case* test) {
  test->model.shared = dice.Coin();
  test->spec += test->model.shared ? ",heads=shared" : ",heads=per_head";
}

void ByInterval(Dice& dice, Case* test) {
  ScoredModel& model = test->model;
  model.interval = dice.Coin() ? 1 : dice.Between(2, 40);
  test->spec += fmt::format(",evict_interval={}", model.interval);
  test->context.prompt_rows = dice.Coin() ? 0 : dice.Between(1, 150);
  model.first_decision =
      std::max(model.budget + model.recent + model.interval, test->context.prompt_rows);
}

void OnceAtThePrompt(Dice& dice, Case* test) {
  ScoredModel& model = test->model;
  test->context.prompt_rows = dice.Between(1, 200);
  const bool decides = test->context.prompt_rows > model.budget + model.recent;
  model.first_decision = decides ? test->context.prompt_rows : kNoRow;
}

Case H2oCase(Dice& dice) {
  Case test;
  ScoredModel& model = test.model;
  model.budget = dice.Between(1, 40);
  model.recent = dice.Between(0, 40);
  model.decay = dice.Coin() ? 1 : 0.5;
  test.spec = fmt::format("h2o:hh_size={},recent_size={},decay={}", model.budget, model.recent,
                          model.decay);
  ByInterval(dice, &test);
  AddHeads(dice, &test);
  AddForced(dice, model.budget, &test);
  return test;
}

Case TovaCase(Dice& dice) {
  Case test;
  ScoredModel& model = test.model;
  model.budget = dice.Between(1, 60);
  model.recent = 1;
  model.decay = 0;
  model.shared = true;
  test.spec = fmt::format("tova:max_capacity={}", model.budget + 1);
  ByInterval(dice, &test);
  AddForced(dice, model.budget, &test);
  return test;
}

Case SnapKvCase(Dice& dice) {
  Case test;
  ScoredModel& model = test.model;
  model.source = ScoreSource::kWindowQueries;
  model.window_size = model.recent = dice.Between(1, 20);
  model.budget = dice.Between(1, 60);
  model.max_pool = dice.Coin();
  model.kernel = 1 + 2 * dice.Between(0, 4);
  // A mean of means would round; one query head keeps the averages comparable.
  test.group = model.max_pool ? 2 : 1;
  test.spec = fmt::format("snapkv:window_size={},max_capacity_prompt={},kernel_size={},pooling={}",
                          model.window_size, model.budget + model.window_size, model.kernel,
                          model.max_pool ? "maxpool" : "avgpool");
  OnceAtThePrompt(dice, &test);
  if (model.max_pool) {
    AddHeads(dice, &test);
  }
  AddForced(dice, model.budget - 1, &test);
  return test;
}

Case KeyCase(Dice& dice, const char* name, ScoreSource source) {
  Case test;
  ScoredModel& model = test.model;
  model.source = source;
  model.budget = dice.Between(1, 60);
  model.recent = dice.Between(0, 20);
  test.spec = fmt::format("{}:max_capacity={},recent_size={}", name, model.budget + model.recent,
                          model.recent);
  if (dice.Coin()) {
    OnceAtThePrompt(dice, &test);
  } else {
    ByInterval(dice, &test);
    test.context.prompt_rows = 0;
    model.first_decision = model.budget + model.recent + model.interval;
  }
  AddHeads(dice, &test);
  AddForced(dice, model.budget, &test);
  return test;
}

struct Kind {
  std::string name;
  std::function<Case(Dice&)> make;
};

const std::vector<Kind>& Kinds() {
  static const auto* kinds = new std::vector<Kind>{
      {"h2o", H2oCase},
      {"tova", TovaCase},
      {"snapkv", SnapKvCase},
      {"knorm", [](Dice& dice) { return KeyCase(dice, "knorm", ScoreSource::kKeyNorm); }},
      {"keydiff", [](Dice& dice) { return KeyCase(dice, "keydiff", ScoreSource::kKeyDifference); }},
  };
  return *kinds;
}

std::unique_ptr<RetentionPolicy> Make(const Case& test) {
  absl::StatusOr<PolicyLanes> lanes = MakeLanes(test.spec, test.context);
  EXPECT_TRUE(lanes.ok()) << test.spec << " " << lanes.status();
  if (!lanes.ok()) return nullptr;
  return std::move(lanes->lanes.at(0));
}

void ExpectNeeds(const ScoreNeeds& needs, const ScoredModel& model) {
  if (model.first_decision == kNoRow) {  // nothing will be decided: nothing is asked for
    EXPECT_EQ(needs.source, ScoreSource::kNone);
    return;
  }
  EXPECT_EQ(needs.source, model.source);
  EXPECT_EQ(needs.shared_across_heads, model.shared);
  EXPECT_EQ(needs.kept_rows_max, model.budget);
  EXPECT_EQ(needs.window_size, model.window_size);
  if (model.source == ScoreSource::kAttentionMass) {
    EXPECT_EQ(needs.decay, model.decay);
  }
}

TEST(ScoredConformance, EveryPolicyThatNeedsScoresHasAModel) {
  PolicyContext context;
  context.separators = {1};
  context.prompt_rows = 1'000'000;
  for (const PolicyInfo& info : Policies()) {
    const auto lanes = MakeLanes(info.name, context);
    ASSERT_TRUE(lanes.ok()) << lanes.status();
    const ScoreSource source = lanes->lanes.front()->Needs().source;
    const bool scored = source != ScoreSource::kNone && source != ScoreSource::kLocalMass;
    EXPECT_EQ(scored, std::any_of(Kinds().begin(), Kinds().end(),
                                  [&](const Kind& kind) { return kind.name == info.name; }))
        << info.name;
  }
}

TEST(ScoredConformance, EveryQuerySeesWhatTheModelSays) {
  for (const Kind& kind : Kinds()) {
    uint64_t decisions = 0, truncations = 0, uneven = 0, resumed = 0;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
      Dice dice(seed);
      const Case test = kind.make(dice);
      SCOPED_TRACE(
          fmt::format("seed {}: {} prompt_rows {}", seed, test.spec, test.context.prompt_rows));
      auto made = Make(test);
      ASSERT_NE(made, nullptr);
      ExpectNeeds(made->Needs(), test.model);
      // Those that decide by keys alone also by way of their bytes.
      const bool by_keys = kind.name == "knorm" || kind.name == "keydiff";
      ShadowedPolicy policy(
          std::move(made), seed,
          by_keys && seed % 2 == 0 ? ByState([&test] { return Make(test); }) : ClonePolicy);
      ScoreSimulatorOptions options;
      options.chunk_max = dice.Between(1, 100);
      options.plan_percent = static_cast<int>(dice.Between(0, 100));
      const ScoreOracle oracle(3, test.group, seed);
      ScoreSimulator simulator(&policy, oracle, options, seed);
      simulator.Run(test.model);
      if (HasFailure()) return;
      decisions += simulator.decisions();
      truncations += simulator.truncations();
      uneven += simulator.uneven();
      resumed += policy.resumed();
      if (test.model.shared) {
        EXPECT_EQ(simulator.uneven(), 0u);
      }
    }
    EXPECT_GT(decisions, 25u) << kind.name;
    EXPECT_GT(resumed, 500u) << kind.name;
    if (kind.name != "tova") {  // which has one set for all heads
      EXPECT_GT(uneven, 10u) << kind.name;
    }
    if (kind.name != "tova" && kind.name != "h2o") {  // whose mass cannot be taken back
      EXPECT_GT(truncations, 60u) << kind.name;
    }
  }
}

TEST(ScoredConformance, ChunkingChangesNothing) {
  for (const Kind& kind : Kinds()) {
    for (const uint64_t chunk : {1U, 7U, 64U}) {
      Dice dice(3);
      const Case test = kind.make(dice);
      const auto policy = Make(test);
      ASSERT_NE(policy, nullptr);
      ScoreSimulatorOptions options;
      options.chunk_max = chunk;
      options.truncate_percent = 0;
      const ScoreOracle oracle(2, test.group, 3);
      ScoreSimulator simulator(policy.get(), oracle, options, chunk);
      simulator.Run(test.model);
    }
  }
}

}  // namespace
}  // namespace kvasir
