// The engine on hand-made block tables: kept runs with gaps that differ from layer to layer,
// windows, sticky rows and in-cache positions, against a masked forward pass in double over all
// rows.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "engine/rope.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/engine_support.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;

constexpr uint32_t kSlots = 16;

// One layer's table from a row on. Kept rows are in cache order; `rotated_at` gives their keys'
// positions.
struct TableSpec {
  std::vector<uint64_t> kept;
  std::vector<uint64_t> rotated_at;
  std::vector<KeptRunView> spans;  // rows, query_offset and query_max of consecutive kept rows
  uint64_t recent_first = 0;
  uint64_t window = 0;
  std::vector<uint64_t> sticky;
};

// A store that follows a script of tables, compacting by copy into blocks of its own, and poisons
// what is not visible any more.
class ScriptedStore final : public KvStore {
 public:
  explicit ScriptedStore(const GgufModel& model)
      : model_(model),
        rope_(model),
        row_floats_(size_t{model.parameters().kv_heads} * model.parameters().head_dim),
        layers_(model.parameters().layers) {}

  // From row `row` on, layer i has the table tables[i].
  void SetTables(uint64_t row, std::vector<TableSpec> tables) { script_[row] = std::move(tables); }

  uint64_t rows() const override { return rows_; }

  absl::StatusOr<StepView> Begin(uint32_t want) override {
    if (const auto found = script_.find(rows_); found != script_.end()) Adopt(found->second);
    const auto next = script_.upper_bound(rows_);
    uint64_t count = want;
    if (next != script_.end()) count = std::min<uint64_t>(count, next->first - rows_);
    views_.clear();
    for (Layer& layer : layers_) {
      while (layer.recent.size() * kSlots < rows_ + count) AddBlock(layer);
      views_.push_back({.kept = layer.kept,
                        .recent = layer.views,
                        .recent_base = 0,
                        .recent_first = layer.table.recent_first,
                        .window = layer.table.window,
                        .sticky = layer.table.sticky,
                        .slots_per_block = kSlots,
                        .k_stride = static_cast<uint32_t>(row_floats_ * sizeof(float)),
                        .v_stride = static_cast<uint32_t>(row_floats_ * sizeof(float))});
    }
    return StepView{.row = rows_, .count = static_cast<uint32_t>(count), .layers = views_};
  }

  absl::Status Commit(std::span<const uint32_t> token_ids) override {
    rows_ += token_ids.size();
    return absl::OkStatus();
  }
  absl::Status Truncate(uint64_t row) override {
    rows_ = row;
    return absl::OkStatus();
  }
  absl::StatusOr<KvUsage> Usage() override { return KvUsage{}; }
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  struct Layer {
    TableSpec table;
    std::vector<std::vector<float>> recent;  // a block: K plane, V plane
    std::vector<RecentBlockView> views;
    std::vector<std::vector<float>> blocks;  // of kept rows, 5 a run with a gap between rows
    std::vector<KeptRunView> kept;
    std::map<uint64_t, std::vector<float>> original;  // K row, then V row, as the engine wrote them
  };

  void AddBlock(Layer& layer) const {
    layer.recent.emplace_back(2 * kSlots * row_floats_, std::numeric_limits<float>::quiet_NaN());
    float* block = layer.recent.back().data();
    layer.views.push_back({.k = reinterpret_cast<std::byte*>(block),
                           .v = reinterpret_cast<std::byte*>(block + kSlots * row_floats_)});
  }

  // Turns a key row from the angle of position `from` to that of `to`.
  void Turn(float* key, uint64_t from, uint64_t to) const {
    const uint32_t pairs = rope_.pairs();
    std::vector<float> back(2 * pairs), on(2 * pairs);
    rope_.Angles(from, back.data(), back.data() + pairs);
    rope_.Angles(to, on.data(), on.data() + pairs);
    for (uint32_t j = 0; j < pairs; ++j) back[pairs + j] = -back[pairs + j];
    for (uint32_t h = 0; h < model_.parameters().kv_heads; ++h) {
      float* head = key + size_t{h} * model_.parameters().head_dim;
      Rotate(back.data(), back.data() + pairs, pairs, head);
      Rotate(on.data(), on.data() + pairs, pairs, head);
    }
  }

  void Adopt(const std::vector<TableSpec>& tables) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      Layer& layer = layers_[i];
      for (uint64_t row = 0; row < rows_; ++row) {
        if (layer.original.count(row) != 0) continue;
        const float* block = layer.recent[row / kSlots].data();
        const float* k = block + row % kSlots * row_floats_;
        std::vector<float> both(k, k + row_floats_);
        const float* v = k + kSlots * row_floats_;
        both.insert(both.end(), v, v + row_floats_);
        layer.original[row] = both;
      }
      layer.table = tables[i];
      FillKept(layer);
      Poison(layer);
    }
  }

  void FillKept(Layer& layer) const {
    constexpr size_t kRunRows = 5;
    const size_t stride = row_floats_ + 3;
    layer.kept.clear();
    layer.blocks.clear();
    size_t at = 0;
    for (const KeptRunView& span : layer.table.spans) {
      for (size_t done = 0; done < span.rows; done += kRunRows) {
        const size_t rows = std::min<size_t>(kRunRows, span.rows - done);
        layer.blocks.emplace_back(2 * kRunRows * stride, std::numeric_limits<float>::quiet_NaN());
        float* block = layer.blocks.back().data();
        for (size_t s = 0; s < rows; ++s, ++at) {
          const std::vector<float>& both = layer.original[layer.table.kept[at]];
          float* key = block + s * stride;
          std::copy_n(both.begin(), row_floats_, key);
          Turn(key, layer.table.kept[at], layer.table.rotated_at[at]);
          std::copy_n(both.begin() + static_cast<ptrdiff_t>(row_floats_), row_floats_,
                      block + (kRunRows + s) * stride);
        }
        KeptRunView run = span;
        run.rows = static_cast<uint32_t>(rows);
        run.k = reinterpret_cast<const std::byte*>(block);
        run.v = reinterpret_cast<const std::byte*>(block + kRunRows * stride);
        run.k_stride = run.v_stride = static_cast<uint32_t>(stride * sizeof(float));
        layer.kept.push_back(run);
      }
    }
  }

  void Poison(Layer& layer) const {
    const TableSpec& table = layer.table;
    const uint64_t low = table.window == 0 || rows_ + 1 < table.window
                             ? table.recent_first
                             : std::max(table.recent_first, rows_ + 1 - table.window);
    for (uint64_t row = 0; row < low; ++row) {
      if (std::count(table.sticky.begin(), table.sticky.end(), row) != 0) continue;
      float* k = layer.recent[row / kSlots].data() + row % kSlots * row_floats_;
      std::fill_n(k, row_floats_, std::numeric_limits<float>::quiet_NaN());
      std::fill_n(k + kSlots * row_floats_, row_floats_, std::numeric_limits<float>::quiet_NaN());
    }
  }

  const GgufModel& model_;
  const Rope rope_;
  const size_t row_floats_;
  uint64_t rows_ = 0;
  std::map<uint64_t, std::vector<TableSpec>> script_;
  std::vector<Layer> layers_;
  std::vector<LayerView> views_;
};

// What the scripted tables let a query see, said again for the forward pass in double.
std::optional<int64_t> SeesByScript(const std::map<uint64_t, std::vector<TableSpec>>& script,
                                    uint32_t layer, uint64_t query, uint64_t key) {
  const auto next = script.upper_bound(query);
  if (next == script.begin()) return SeesAll(layer, query, key);
  const TableSpec& table = std::prev(next)->second[layer];
  const auto distance = static_cast<int64_t>(query - key);
  if (key >= table.recent_first) {
    const bool in_window = table.window == 0 || distance < static_cast<int64_t>(table.window);
    const bool sticky = std::count(table.sticky.begin(), table.sticky.end(), key) != 0;
    return in_window || sticky ? std::optional(distance) : std::nullopt;
  }
  const auto found = std::find(table.kept.begin(), table.kept.end(), key);
  if (found == table.kept.end()) return std::nullopt;
  auto index = static_cast<size_t>(found - table.kept.begin());
  const auto rotated_at = static_cast<int64_t>(table.rotated_at[index]);
  for (const KeptRunView& span : table.spans) {
    if (index < span.rows) return static_cast<int64_t>(span.QueryPosition(query)) - rotated_at;
    index -= span.rows;
  }
  return std::nullopt;
}

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
  TableSpec table{.kept = KeptRows(layer, recent_first),
                  .rotated_at = {},
                  .spans = {},
                  .recent_first = recent_first,
                  .window = window,
                  .sticky = std::move(sticky)};
  table.rotated_at = table.kept;
  table.spans = {{.rows = static_cast<uint32_t>(table.kept.size())}};
  return table;
}

// Keys at their index in the cache; the first four get the query at its index too, capped, the
// others one that is `layer` positions nearer.
TableSpec AtCachePositions(uint32_t layer, uint64_t recent_first) {
  TableSpec table = AtOriginalPositions(layer, recent_first, 0, {});
  for (size_t i = 0; i < table.kept.size(); ++i) table.rotated_at[i] = i;
  const auto removed = static_cast<int64_t>(recent_first - table.kept.size());
  table.spans = {{.rows = 4, .query_offset = removed, .query_max = table.kept.size() + 20},
                 {.rows = static_cast<uint32_t>(table.kept.size() - 4),
                  .query_offset = removed + static_cast<int64_t>(layer)}};
  return table;
}

class LayerViews : public ::testing::Test {
 protected:
  // Computes 300 tokens in batches of 33 and, in between, one by one; compares with the oracle.
  Difference Run(const DoubleLlama::Sees& sees) {
    const std::vector<uint32_t> tokens = Prose(300);
    ScriptedStore store(model_);
    for (const auto& [row, tables] : script_) store.SetTables(row, tables);
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
      return SeesByScript(script_, layer, query, key);
    });
  }

  const GgufModel model_ = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
  std::map<uint64_t, std::vector<TableSpec>> script_;
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
              return SeesByScript(without_sticky, layer, query, key);
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
    return SeesByScript(script_, layer, query, key).has_value() ? SeesAll(layer, query, key)
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
