// The engine on hand-made block tables: kept runs with gaps that differ from layer to layer,
// windows, sticky rows and in-cache positions, against a masked forward pass in double over all
// rows.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "tests/engine/double_llama.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/scripted_store.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;

std::vector<uint32_t> Prose(size_t tokens) {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  auto ids = fixture["policy_checks"][2]["ids"].get<std::vector<uint32_t>>();
  ids.resize(tokens);
  return ids;
}

// Rows below `end` that layer `layer` keeps: the first four and about a third, other ones in each
// layer.
std::vector<uint64_t> KeptRows(uint32_t layer, uint64_t end) {
  std::vector<uint64_t> rows;
  for (uint64_t row = 0; row < end; ++row) {
    if (row < 4 || (row * 2654435761U + layer * 40503U) % 97 < 32) rows.push_back(row);
  }
  return rows;
}

TableSpec AtOriginalPositions(uint32_t layer, uint64_t recent_first, uint64_t window,
                              std::vector<uint64_t> sticky) {
  TableSpec table{.kept = {KeptRows(layer, recent_first)},
                  .rotated_at = {},
                  .spans = {},
                  .recent_first = recent_first,
                  .window = window,
                  .sticky = std::move(sticky)};
  table.spans = {{.rows = static_cast<uint32_t>(table.kept[0].size())}};
  return table;
}

// Keys at their index in the cache; the first four get the query at its index too, capped, the
// others one that is `layer` positions nearer.
TableSpec AtCachePositions(uint32_t layer, uint64_t recent_first) {
  TableSpec table = AtOriginalPositions(layer, recent_first, 0, {});
  const size_t rows = table.kept[0].size();
  for (size_t i = 0; i < rows; ++i) table.rotated_at.push_back(i);
  const auto removed = static_cast<int64_t>(recent_first - rows);
  table.spans = {{.rows = 4, .query_offset = removed, .query_max = rows + 20},
                 {.rows = static_cast<uint32_t>(rows - 4),
                  .query_offset = removed + static_cast<int64_t>(layer)}};
  return table;
}

class LayerViews : public ::testing::Test {
 protected:
  // Computes 300 tokens in batches of 33 and, in between, one by one; compares with the oracle.
  Difference Run(const DoubleLlama::Sees& sees) {
    const std::vector<uint32_t> tokens = Prose(300);
    ScriptedStore store(model_, script_);
    const auto engine =
        ValueOrDie(LlamaEngine::Create(model_, {.threads = threads_, .kv_type = RowType::kF32}));
    std::vector<float> logits;
    const std::span<const uint32_t> all(tokens);
    for (const auto& [first, count, batch] : std::vector<std::tuple<size_t, size_t, uint32_t>>{
             {0, 125, 33}, {125, 30, 1}, {155, 60, 33}, {215, 40, 1}, {255, 45, 33}}) {
      const auto part = ComputeAll(*engine, store, all.subspan(first, count), batch);
      logits.insert(logits.end(), part.begin(), part.end());
    }
    Difference difference;
    difference.Add(logits, DoubleLlama(model_).Forward(tokens, sees),
                   model_.parameters().vocabulary);
    return difference;
  }

  Difference RunAgainstScript() {
    return Run([this](uint32_t layer, uint64_t query, uint64_t key) {
      return SeesByScript(script_, layer, 0, query, key);
    });
  }

  const GgufModel model_ = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
  Script script_;
  uint32_t threads_ = 1;
};

TEST_F(LayerViews, FullTableIsPlainAttention) {
  const Difference difference = Run(SeesAll);
  EXPECT_LE(difference.logit, 2e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
}

TEST_F(LayerViews, KeptRowsDifferFromLayerToLayer) {
  for (uint32_t layer = 0; layer < 4; ++layer) {
    script_[120].push_back(AtOriginalPositions(layer, 96, 0, {}));
    script_[200].push_back(AtOriginalPositions(layer, 176 + layer, 0, {}));
  }
  const Difference difference = RunAgainstScript();
  EXPECT_LE(difference.logit, 2e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_GE(Run(SeesAll).logit, 0.5);  // the tables change what is computed
}

TEST_F(LayerViews, WindowsAndStickyRows) {
  for (uint32_t layer = 0; layer < 4; ++layer) {
    script_[110].push_back(
        AtOriginalPositions(layer, 90, 20 + 7 * layer, {90, 95, 96, 97, 100, 108 + layer % 2}));
    script_[210].push_back(AtOriginalPositions(layer, 170, 12, {175, 176, 180 + layer, 200, 201}));
  }
  const Difference difference = RunAgainstScript();
  EXPECT_LE(difference.logit, 2e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
  auto without_sticky = script_;
  for (auto& [row, tables] : without_sticky) {
    for (TableSpec& table : tables) table.sticky.clear();
  }
  EXPECT_GE(Run([&](uint32_t layer, uint64_t query, uint64_t key) {
              return SeesByScript(without_sticky, layer, 0, query, key);
            }).logit,
            0.1);
}

TEST_F(LayerViews, InCachePositions) {
  for (uint32_t layer = 0; layer < 4; ++layer) {
    script_[100].push_back(AtCachePositions(layer, 80));
    script_[190].push_back(AtCachePositions(layer, 160));
  }
  const Difference difference = RunAgainstScript();
  EXPECT_LE(difference.logit, 2e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
  const auto at_original = [this](uint32_t layer, uint64_t query, uint64_t key) {
    return SeesByScript(script_, layer, 0, query, key).has_value() ? SeesAll(layer, query, key)
                                                                   : std::nullopt;
  };
  EXPECT_GE(Run(at_original).logit, 0.1);  // positions change what is computed
}

// One run only: ggml's threads wait by spinning, which takes very long on a busy machine.
TEST_F(LayerViews, TwoThreadsSeeTheSame) {
  threads_ = 2;
  for (uint32_t layer = 0; layer < 4; ++layer) {
    script_[120].push_back(AtOriginalPositions(layer, 96, 0, {}));
    script_[210].push_back(AtOriginalPositions(layer, 170, 12, {175, 176, 180 + layer, 200, 201}));
  }
  const Difference difference = RunAgainstScript();
  EXPECT_LE(difference.logit, 2e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
}

TEST(BadViews, AreErrors) {
  const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kAsStored));
  const auto engine =
      ValueOrDie(LlamaEngine::Create(model, {.threads = 1, .kv_type = RowType::kF32}));
  ScriptedStore store(model);
  const uint32_t token = 1;
  StepView step = ValueOrDie(store.Begin(1));
  std::vector<LayerView> layers(step.layers.begin(), step.layers.end());
  layers[2].recent = {};
  step.layers = layers;
  EXPECT_EQ(engine->Compute({&token, 1}, step, LogitsWanted::kLast).status().code(),
            absl::StatusCode::kInternal);
  step.layers = std::span(layers).first(3);
  EXPECT_EQ(engine->Compute({&token, 1}, step, LogitsWanted::kLast).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace kvasir::engine::testing
