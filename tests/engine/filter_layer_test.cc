// Selection of a prompt's tokens by the keys of one layer: what the engine computes for it, and
// what the generator makes of it, over a store that selects by itself.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "base/error.h"
#include "engine/generator.h"
#include "engine/selected_text.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/scripted_store.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;
using ::testing::HasSubstr;

constexpr uint32_t kFilterLayer = 2;
constexpr size_t kTokens = 150;
constexpr size_t kTopK = 24;

std::vector<uint32_t> Prose() {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  auto ids = fixture["policy_checks"][1]["ids"].get<std::vector<uint32_t>>();
  ids.resize(kTokens);
  return ids;
}

// GemFilter by its text: averages over 5 neighbours, zeros outside; the largest, ties to the lower
// row; ascending.
std::vector<uint32_t> Select(const std::vector<double>& scores, size_t count) {
  std::vector<double> pooled(scores.size());
  for (size_t t = 0; t < scores.size(); ++t) {
    for (size_t i = t < 2 ? 0 : t - 2; i < std::min(scores.size(), t + 3); ++i) {
      pooled[t] += scores[i] / 5.0;
    }
  }
  std::vector<uint32_t> rows(scores.size());
  std::iota(rows.begin(), rows.end(), 0U);
  std::stable_sort(rows.begin(), rows.end(),
                   [&](uint32_t a, uint32_t b) { return pooled[a] > pooled[b]; });
  rows.resize(std::min(count, rows.size()));
  std::sort(rows.begin(), rows.end());
  return rows;
}

// Private memory with a selection policy of its own.
class SelectingStore final : public KvStore {
 public:
  SelectingStore(const GgufModel& model, RowType type)
      : store_(MakePrivateStore(model, type)),
        width_(model.parameters().kv_heads * model.parameters().head_dim) {}

  uint64_t rows() const override { return store_->rows(); }
  absl::StatusOr<StepView> Begin(uint32_t want) override { return store_->Begin(want); }
  absl::Status Commit(std::span<const uint32_t> ids) override { return store_->Commit(ids); }
  absl::Status Truncate(uint64_t row) override { return store_->Truncate(row); }
  absl::StatusOr<KvUsage> Usage() override { return store_->Usage(); }
  absl::Status Close() override { return store_->Close(); }
  std::optional<uint32_t> filter_layer() const override {
    return selected_ ? std::nullopt : std::optional(kFilterLayer);
  }
  absl::StatusOr<std::vector<uint32_t>> SelectRows(std::span<const float> query) override {
    EXPECT_EQ(query.size(), width_);
    selected_ = true;
    const uint64_t rows = store_->rows();
    const StepView step = ValueOrDie(store_->Begin(1));
    std::vector<double> scores(rows);
    for (uint64_t row = 0; row < rows; ++row) {
      std::vector<float> key(width_);
      std::memcpy(key.data(), step.layers[kFilterLayer].KeyOf(row), width_ * sizeof(float));
      for (size_t i = 0; i < width_; ++i) {
        scores[row] += static_cast<double>(key[i]) * static_cast<double>(query[i]);
      }
    }
    if (const absl::Status status = store_->Truncate(0); !status.ok()) return status;
    return forced_.empty() ? Select(scores, kTopK) : forced_;
  }

  std::vector<uint32_t> forced_;

 private:
  std::unique_ptr<PrivateKvStore> store_;
  const size_t width_;
  bool selected_ = false;
};

class FilterLayer : public ::testing::Test {
 protected:
  // Runs the tokens in batches of 40 through `store`, up to `layer` or in full.
  std::vector<float> Run(KvStore& store, std::optional<uint32_t> layer) const {
    std::vector<float> result;
    const std::span<const uint32_t> all(tokens_);
    while (store.rows() < kTokens) {
      const auto want = static_cast<uint32_t>(std::min<size_t>(40, kTokens - store.rows()));
      const StepView step = ValueOrDie(store.Begin(want));
      const auto rows = all.subspan(step.row, step.count);
      const auto part = ValueOrDie(layer ? engine_->ComputeFilter(rows, step, *layer)
                                         : engine_->Compute(rows, step, LogitsWanted::kNone));
      result.assign(part.begin(), part.end());
      EXPECT_TRUE(store.Commit(rows).ok());
    }
    return result;
  }

  // q [heads][head_dim] summed over the query heads of each kv head.
  template <typename T>
  std::vector<double> SumGroups(const std::vector<T>& q) const {
    const HyperParameters& p = model_.parameters();
    std::vector<double> sums(size_t{p.kv_heads} * p.head_dim);
    for (size_t i = 0; i < q.size(); ++i) {
      const size_t head = i / p.head_dim / (p.heads / p.kv_heads);
      sums[head * p.head_dim + i % p.head_dim] += static_cast<double>(q[i]);
    }
    return sums;
  }

  const GgufModel model_ = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
  const Tokenizer tokenizer_ = ValueOrDie(Tokenizer::Load(kTinyModel));
  const std::unique_ptr<LlamaEngine> engine_ =
      ValueOrDie(LlamaEngine::Create(model_, {.kv_type = RowType::kF32}));
  const std::vector<uint32_t> tokens_ = Prose();
};

TEST_F(FilterLayer, WritesTheKeysOfAFullPassAndNothingAbove) {
  const auto full = MakePrivateStore(model_, RowType::kF32);
  (void)Run(*full, std::nullopt);
  const StepView expected = ValueOrDie(full->Begin(1));
  for (uint32_t filter = 0; filter < model_.parameters().layers; ++filter) {
    const auto store = MakePrivateStore(model_, RowType::kF32);
    (void)Run(*store, filter);
    const StepView step = ValueOrDie(store->Begin(1));
    for (uint32_t layer = 0; layer < model_.parameters().layers; ++layer) {
      const LayerView& ours = step.layers[layer];
      const LayerView& theirs = expected.layers[layer];
      const std::vector<std::byte> zeros(ours.k_stride);
      for (uint64_t row = 0; row < kTokens; ++row) {
        const void* key = layer <= filter ? theirs.KeyOf(row) : zeros.data();
        const void* value = layer < filter ? theirs.ValueOf(row) : zeros.data();
        ASSERT_EQ(std::memcmp(ours.KeyOf(row), key, ours.k_stride), 0) << layer << " " << row;
        ASSERT_EQ(std::memcmp(ours.ValueOf(row), value, ours.v_stride), 0) << layer << " " << row;
      }
    }
  }
}

TEST_F(FilterLayer, QueryIsThatOfAFullPassSummedOverGroups) {
  ScriptedStore full(model_, {}, {.query_first = kTokens - 1, .query_count = 1});
  (void)Run(full, std::nullopt);
  for (uint32_t filter = 0; filter < model_.parameters().layers; ++filter) {
    const auto store = MakePrivateStore(model_, RowType::kF32);
    const std::vector<float> query = Run(*store, filter);
    const std::vector<double> expected = SumGroups(full.queries(filter));
    ASSERT_EQ(query.size(), expected.size());
    for (size_t i = 0; i < query.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(query[i]), expected[i], 1e-4);
    }
  }
}

TEST_F(FilterLayer, GeneratorSelectsTheRowsOfTheOracle) {
  const HyperParameters& p = model_.parameters();
  const DoubleLlama llama(model_);
  std::vector<std::vector<double>> keys;
  std::vector<double> query;
  DoubleLlama::Probe probe;
  probe.rows = [&](uint32_t layer, uint64_t row, std::vector<double> q, std::vector<double> k) {
    if (layer != kFilterLayer) return;
    llama.Turn(static_cast<int64_t>(row), k);
    llama.Turn(static_cast<int64_t>(row), q);
    keys.push_back(std::move(k));
    query = SumGroups(q);
  };
  (void)llama.ForwardByHead(
      tokens_,
      [](uint32_t layer, uint32_t, uint64_t row, uint64_t key) { return SeesAll(layer, row, key); },
      probe);
  std::vector<double> scores;
  for (const auto& key : keys) {
    scores.push_back(std::inner_product(key.begin(), key.end(), query.begin(), 0.0));
  }
  SelectingStore store(model_, RowType::kF32);
  Generator generator(*engine_, tokenizer_, store, 64);
  const GenerateResult result =
      ValueOrDie(generator.Generate(tokens_, {.tokens_max = 1}, nullptr, nullptr));
  EXPECT_EQ(result.selected_rows, Select(scores, kTopK));
  EXPECT_EQ(result.selected_rows.size(), kTopK);
  EXPECT_EQ(result.prefill_token_layers, kTokens * (kFilterLayer + 1) + kTopK * p.layers);
  EXPECT_EQ(result.prefill_token_layers_full, kTokens * p.layers);
}

TEST_F(FilterLayer, GenerationIsThatOfTheSelectedTokensAndLaterTurnsAppend) {
  SelectingStore store(model_, RowType::kF32);
  const auto plain = MakePrivateStore(model_, RowType::kF32);
  Generator ours(*engine_, tokenizer_, store, 64);
  Generator reference(*engine_, tokenizer_, *plain, 64);
  std::string text;
  std::vector<uint32_t> told;
  GenerateOptions options = {.tokens_max = 20, .stop_at_end = false};
  options.on_selected = [&](std::span<const uint32_t> rows) {
    EXPECT_EQ(text, "");  // before any text
    told.assign(rows.begin(), rows.end());
  };
  const GenerateResult first = ValueOrDie(
      ours.Generate(tokens_, options, nullptr, [&text](const std::string& part) { text += part; }));
  EXPECT_EQ(told, first.selected_rows);
  std::vector<uint32_t> selected;
  for (const uint32_t row : told) selected.push_back(tokens_[row]);
  const GenerateResult expected =
      ValueOrDie(reference.Generate(selected, options, nullptr, nullptr));
  EXPECT_EQ(first.tokens, expected.tokens);
  EXPECT_EQ(first.prompt_tokens, kTokens);
  EXPECT_EQ(store.rows(), plain->rows());
  EXPECT_TRUE(expected.selected_rows.empty());
  EXPECT_EQ(expected.prefill_token_layers, expected.prefill_token_layers_full);

  const std::vector<uint32_t> turn(tokens_.begin() + 5, tokens_.begin() + 25);
  const GenerateResult second = ValueOrDie(ours.Generate(turn, options, nullptr, nullptr));
  EXPECT_EQ(second.tokens, ValueOrDie(reference.Generate(turn, options, nullptr, nullptr)).tokens);
  EXPECT_TRUE(second.selected_rows.empty());
  EXPECT_EQ(store.rows(), plain->rows());
}

TEST_F(FilterLayer, SelectedTextMarksGaps) {
  const auto prompt = ValueOrDie(tokenizer_.Encode("In the beginning God created", false, false));
  ASSERT_GE(prompt.size(), 5U);
  const auto piece = [&](size_t row) { return ValueOrDie(tokenizer_.Piece(prompt[row])); };
  const auto text = [&](const std::vector<uint32_t>& rows) {
    return ValueOrDie(SelectedText(tokenizer_, prompt, rows));
  };
  const auto last = static_cast<uint32_t>(prompt.size() - 1);
  const std::string gap = " \xE2\x80\xA6 ";
  EXPECT_EQ(text({0, 1, 3}), piece(0) + piece(1) + gap + piece(3) + gap);
  EXPECT_EQ(text({2, last}), gap + piece(2) + gap + piece(last));
  std::vector<uint32_t> all(prompt.size());
  std::iota(all.begin(), all.end(), 0U);
  EXPECT_EQ(text(all), "In the beginning God created");
}

TEST_F(FilterLayer, WrongSelectionsAndLayersAreErrors) {
  for (const std::vector<uint32_t>& rows :
       std::vector<std::vector<uint32_t>>{{3, 3}, {5, 4}, {0, kTokens}}) {
    SelectingStore store(model_, RowType::kF32);
    store.forced_ = rows;
    Generator generator(*engine_, tokenizer_, store, 64);
    EXPECT_THAT(MessageOf(generator.Generate(tokens_, {}, nullptr, nullptr).status()),
                HasSubstr("prompt_tokens=150"));
  }
  const auto plain = MakePrivateStore(model_, RowType::kF32);
  EXPECT_EQ(plain->SelectRows({}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(plain->filter_layer().has_value());
  const StepView step = ValueOrDie(plain->Begin(1));
  EXPECT_THAT(MessageOf(engine_->ComputeFilter(std::span(tokens_).first(1), step, 4).status()),
              HasSubstr("filter_layer=4 min=0 max=3"));
}

}  // namespace
}  // namespace kvasir::engine::testing
