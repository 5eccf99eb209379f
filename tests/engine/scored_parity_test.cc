// Score-based retention through the reference engine and a daemon, with the tiny model at F32:
// logits against a forward pass in double in which each kv head is masked to the rows of the
// paper's rule, with scores of that pass.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/generator.h"
#include "tests/engine/daemon_parity_support.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/in_place_store.h"
#include "tests/engine/scored_oracle.h"

#include <fmt/format.h>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;
using ::testing::IsEmpty;

constexpr size_t kTokens = 360;
constexpr uint32_t kBatch = 24;

std::vector<ScoredRule> MassRules() {
  std::vector<ScoredRule> rules(6);
  rules[0] = {.name = "H2o", .retention = "h2o:hh_size=24,recent_size=16,evict_interval=8"};
  rules[1] = {.name = "H2oEveryStep",
              .retention = "h2o:hh_size=40,recent_size=80,evict_interval=1"};
  rules[2] = {
      .name = "H2oDecayShared",
      .retention = "h2o:hh_size=30,recent_size=10,evict_interval=16,decay=0.9,heads=shared"};
  rules[3] = {.name = "H2oDecay",
              .retention = "h2o:hh_size=40,recent_size=1,evict_interval=32,decay=0.98"};
  rules[4] = {.name = "Tova", .retention = "tova:max_capacity=48,evict_interval=8"};
  rules[5] = {
      .name = "SinksSeparatorsH2o",
      .retention = "sinks:size=3|separators|h2o:hh_size=90,recent_size=20,evict_interval=20"};
  const auto set = [&rules](size_t i, uint64_t budget, uint64_t recent, uint64_t interval) {
    rules[i].budget = budget;
    rules[i].recent = recent;
    rules[i].interval = interval;
  };
  set(0, 24, 16, 8);
  set(1, 40, 80, 1);
  set(2, 30, 10, 16);
  set(3, 40, 1, 32);
  set(4, 47, 1, 8);
  set(5, 90, 20, 20);
  rules[2].decay = 0.9;
  rules[3].decay = 0.98;
  rules[4].decay = 0.0;
  rules[2].shared = rules[4].shared = true;
  rules[5].sinks = 3;
  return rules;
}

std::vector<ScoredRule> PromptRules() {
  std::vector<ScoredRule> rules(5);
  rules[0] = {.name = "SnapKv",
              .retention = "snapkv:max_capacity_prompt=72,window_size=16,kernel_size=7"};
  rules[1] = {.name = "SnapKvMaximumShared",
              .retention =
                  "snapkv:max_capacity_prompt=64,window_size=32,kernel_size=5,"
                  "pooling=maxpool,start_size=4,heads=shared"};
  rules[2] = {.name = "Knorm", .retention = "knorm:max_capacity=60,recent_size=4"};
  rules[3] = {.name = "KeyDiff", .retention = "keydiff:max_capacity=70,recent_size=2"};
  rules[4] = {.name = "SinksKeyDiffShared",
              .retention = "sinks:size=4|keydiff:max_capacity=50,recent_size=8,heads=shared"};
  const auto set = [&rules](size_t i, ScoredRule::Score score, uint64_t budget, uint64_t recent) {
    rules[i].score = score;
    rules[i].budget = budget;
    rules[i].recent = recent;
    rules[i].prompt_rows = 203;
  };
  set(0, ScoredRule::Score::kQueries, 56, 16);
  set(1, ScoredRule::Score::kQueries, 32, 32);
  set(2, ScoredRule::Score::kKeyNorm, 56, 4);
  set(3, ScoredRule::Score::kKeyDifference, 68, 2);
  set(4, ScoredRule::Score::kKeyDifference, 42, 8);
  rules[0].window = 16;
  rules[0].kernel = 7;
  rules[1].window = 32;
  rules[1].kernel = 5;
  rules[1].maximum = rules[1].shared = rules[4].shared = true;
  rules[1].sinks = rules[4].sinks = 4;
  return rules;
}

// The same rules with values that are coded one by one, when their rows leave recent.
std::vector<ScoredRule> CodedRules() {
  std::vector<ScoredRule> rules;
  for (const ScoredRule& rule : MassRules()) rules.push_back(rule);
  for (const ScoredRule& rule : PromptRules()) rules.push_back(rule);
  for (size_t i = 0; i < rules.size(); ++i) {
    rules[i].v_bits = i % 2 == 0 ? 3 : 2;
    rules[i].retention += fmt::format("+as_written/rot{}", rules[i].v_bits);
  }
  return rules;
}

class ScoredPolicies : public DaemonParity {
 protected:
  void SetUp() override {
    StartDaemon(64 * kMiB);
    LoadModel(kTinyModel);
  }

  // In batches, one by one, and in batches again.
  std::vector<float> Compute(KvStore& store, std::span<const uint32_t> tokens) {
    std::vector<float> logits;
    for (const auto& [end, batch] :
         std::vector<std::pair<size_t, uint32_t>>{{220, kBatch}, {290, 1}, {kTokens, kBatch}}) {
      const auto part =
          ComputeAll(*engine_, store, tokens.subspan(store.rows(), end - store.rows()), batch);
      logits.insert(logits.end(), part.begin(), part.end());
    }
    return logits;
  }
};

class ScoredRules : public ScoredPolicies, public ::testing::WithParamInterface<ScoredRule> {};

TEST_P(ScoredRules, LogitsAreThoseOfTheRowsThatTheRuleKeeps) {
  ScoredRule rule = GetParam();
  if (rule.retention.find("separators") != std::string::npos) rule.separators = Separators();
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const auto ours = MakeStore(rule.retention, rule.prompt_rows);
  SeenStore seen(*ours, model_->parameters().kv_heads);
  const std::vector<float> logits = Compute(seen, tokens);
  const DoubleLlama llama(*model_);
  ScoredOracle oracle(*model_, llama, rule, tokens, seen.seen());
  const std::vector<float> expected = llama.ForwardByHead(tokens, oracle.Sees(), oracle.Probe());
  const size_t vocabulary = model_->parameters().vocabulary;
  Difference difference;
  difference.Add(logits, expected, vocabulary);
  InPlaceStore everything(*model_, {}, kTokens);
  Difference full;
  full.Add(logits, ComputeAll(*engine_, everything, tokens, kBatch), vocabulary);
  fmt::print(
      "  {}: logits differ by {:.6f}, without the policy by {:.2f}; {} keep sets, {} near ties\n",
      rule.name, difference.logit, full.logit, oracle.keep_sets(), oracle.near_ties());
  EXPECT_THAT(oracle.faults(), IsEmpty());
  EXPECT_LE(difference.logit, 1e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_GT(full.logit,
            0.3);  // H2O and SnapKV keep what matters: a small difference, but far above
  EXPECT_GE(oracle.keep_sets(), uint64_t{layers()} * model_->parameters().kv_heads);
  EXPECT_LE(oracle.near_ties() * 50, oracle.keep_sets());
}

// The comparison can fail: an oracle of another rule disagrees.
TEST_F(ScoredPolicies, AnotherRuleIsFoundOut) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  ScoredRule rule = MassRules()[0];
  const auto ours = MakeStore(rule.retention);
  SeenStore seen(*ours, model_->parameters().kv_heads);
  (void)Compute(seen, tokens);
  const DoubleLlama llama(*model_);
  rule.decay = 0.9;
  ScoredOracle oracle(*model_, llama, rule, tokens, seen.seen());
  (void)llama.ForwardByHead(tokens, oracle.Sees(), oracle.Probe());
  EXPECT_GT(oracle.faults().size(), 10U);
}

std::string NameOf(const ::testing::TestParamInfo<ScoredRule>& one) { return one.param.name; }

INSTANTIATE_TEST_SUITE_P(Mass, ScoredRules, ::testing::ValuesIn(MassRules()), NameOf);
INSTANTIATE_TEST_SUITE_P(Prompt, ScoredRules, ::testing::ValuesIn(PromptRules()), NameOf);
INSTANTIATE_TEST_SUITE_P(Coded, ScoredRules, ::testing::ValuesIn(CodedRules()), NameOf);

// The code is not too small to be seen.
TEST_F(ScoredPolicies, RowsAsWrittenAreNotTheCodedOnes) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  ScoredRule rule = CodedRules()[0];
  const auto ours = MakeStore(rule.retention);
  SeenStore seen(*ours, model_->parameters().kv_heads);
  const std::vector<float> logits = Compute(seen, tokens);
  const DoubleLlama llama(*model_);
  rule.v_bits = 0;
  ScoredOracle oracle(*model_, llama, rule, tokens, seen.seen());
  Difference difference;
  difference.Add(logits, llama.ForwardByHead(tokens, oracle.Sees(), oracle.Probe()),
                 model_->parameters().vocabulary);
  EXPECT_GT(difference.logit, 0.03);
}

// Fewer bytes are held and charged on both sides of the table, and none of them is lost.
TEST_F(ScoredPolicies, CodedValuesTakeTheirOwnBytes) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const std::string policy = "h2o:hh_size=250,recent_size=8,evict_interval=8";
  const auto written = MakeStore(policy);
  (void)ComputeAll(*engine_, *written, tokens, kBatch);
  const KvUsage before = ValueOrDie(written->Usage());
  ASSERT_TRUE(written->Close().ok());
  const auto coded = MakeStore(policy + "+as_written/rot3");
  (void)ComputeAll(*engine_, *coded, tokens, kBatch);
  const KvUsage after = ValueOrDie(coded->Usage());
  EXPECT_EQ(after.tokens_kept, before.tokens_kept);
  EXPECT_LT(after.held_bytes * 10, before.held_bytes * 9);
  const StepView step = ValueOrDie(coded->Begin(1));
  const KeptRunView& run = step.layers[1].kept.front();
  const HyperParameters& p = model_->parameters();
  EXPECT_EQ(run.v_bits, 3U);
  EXPECT_EQ(run.v_stride, p.kv_heads * (1 + p.head_dim * 3 / 8));
}

class GemFilterEngine : public DaemonParity {
 protected:
  static constexpr uint32_t kLayer = 2;

  void SetUp() override {
    StartDaemon(64 * kMiB);
    LoadModel(kTinyModel);
  }

  // Pooled scores of the prompt's rows, in double.
  std::vector<double> OracleScores(std::span<const uint32_t> tokens) const {
    const HyperParameters& p = model_->parameters();
    const DoubleLlama llama(*model_);
    std::vector<std::vector<double>> keys;
    std::vector<double> query;
    DoubleLlama::Probe probe;
    probe.rows = [&](uint32_t layer, uint64_t row, std::vector<double> q, std::vector<double> k) {
      if (layer != kLayer) return;
      llama.Turn(static_cast<int64_t>(row), q);
      llama.Turn(static_cast<int64_t>(row), k);
      keys.push_back(std::move(k));
      query = std::move(q);
    };
    const auto sees = [](uint32_t layer, uint32_t, uint64_t row, uint64_t key) {
      return SeesAll(layer, row, key);
    };
    (void)llama.ForwardByHead(tokens, sees, probe);
    std::vector<double> scores;
    for (const auto& key : keys) {
      double& score = scores.emplace_back();
      for (size_t i = 0; i < query.size(); ++i) {
        const size_t kv_head = i / p.head_dim / (p.heads / p.kv_heads);
        score += query[i] * key[kv_head * p.head_dim + i % p.head_dim];
      }
    }
    std::vector<double> pooled(scores.size());
    for (size_t t = 0; t < scores.size(); ++t) {
      for (size_t i = t < 2 ? 0 : t - 2; i < std::min(scores.size(), t + 3); ++i) {
        pooled[t] += scores[i] / 5.0;
      }
    }
    return pooled;
  }
};

TEST_F(GemFilterEngine, SelectsTheOraclesRowsAndGoesOnWithThemAlone) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const std::span<const uint32_t> prompt = std::span(tokens).first(300);
  const auto ours = MakeStore("gemfilter:filter_layer=2,topk=40,n_sink=2,n_tail=6", prompt.size());
  Generator generator(*engine_, *tokenizer_, *ours, 64);
  const GenerateOptions options = {.tokens_max = 12, .stop_at_end = false};
  const GenerateResult result = ValueOrDie(generator.Generate(prompt, options, nullptr, nullptr));
  std::vector<double> scores = OracleScores(prompt);
  for (const size_t row : {0U, 1U, 294U, 295U, 296U, 297U, 298U, 299U}) scores[row] = HUGE_VAL;
  std::vector<uint32_t> expected(scores.size());
  std::iota(expected.begin(), expected.end(), 0U);
  std::stable_sort(expected.begin(), expected.end(),
                   [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  expected.resize(40);
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(result.selected_rows, expected);
  EXPECT_EQ(result.prefill_token_layers, 300U * 3 + 40 * 4);
  EXPECT_EQ(result.prefill_token_layers_full, 300U * 4);

  const auto plain = MakePrivateStore(*model_, RowType::kF32);
  Generator reference(*engine_, *tokenizer_, *plain, 64);
  std::vector<uint32_t> selected;
  for (const uint32_t row : expected) selected.push_back(prompt[row]);
  EXPECT_EQ(result.tokens,
            ValueOrDie(reference.Generate(selected, options, nullptr, nullptr)).tokens);
  EXPECT_EQ(ours->rows(), plain->rows());
  const auto turn = std::span(tokens).last(60);  // a later turn appends
  Difference difference;
  difference.Add(ComputeAll(*engine_, *ours, turn, kBatch),
                 ComputeAll(*engine_, *plain, turn, kBatch), model_->parameters().vocabulary);
  EXPECT_LE(difference.logit, 1e-3);
}

TEST_F(GemFilterEngine, ShortPromptsAreKeptWhole) {
  const std::vector<uint32_t> tokens = Prose(30);
  const auto ours = MakeStore("gemfilter:filter_layer=1,topk=64", tokens.size());
  Generator generator(*engine_, *tokenizer_, *ours, 64);
  const GenerateResult result =
      ValueOrDie(generator.Generate(tokens, {.tokens_max = 4}, nullptr, nullptr));
  std::vector<uint32_t> all(tokens.size());
  std::iota(all.begin(), all.end(), 0U);
  EXPECT_EQ(result.selected_rows, all);
}

}  // namespace
}  // namespace kvasir::engine::testing
