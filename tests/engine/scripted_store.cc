#include "tests/engine/scripted_store.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace kvasir::engine::testing {
namespace {

constexpr uint32_t kSlots = 16;
constexpr size_t kRunRows = 5;
constexpr size_t kRowGap = 3;  // floats between kept rows
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

}  // namespace

std::optional<int64_t> SeesByScript(const Script& script, uint32_t layer, uint32_t kv_head,
                                    uint64_t query, uint64_t key) {
  const auto distance = static_cast<int64_t>(query - key);
  const auto next = script.upper_bound(query);
  if (next == script.begin()) return distance;
  const TableSpec& table = std::prev(next)->second[layer];
  if (key >= table.recent_first) {
    const bool in_window = table.window == 0 || distance < static_cast<int64_t>(table.window);
    const bool sticky = std::count(table.sticky.begin(), table.sticky.end(), key) != 0;
    return in_window || sticky ? std::optional(distance) : std::nullopt;
  }
  const std::vector<uint64_t>& kept = table.KeptOf(kv_head);
  const auto found = std::find(kept.begin(), kept.end(), key);
  if (found == kept.end()) return std::nullopt;
  auto index = static_cast<size_t>(found - kept.begin());
  const uint64_t rotated_at = table.rotated_at.empty() ? key : table.rotated_at[index];
  for (const KeptRunView& span : table.spans) {
    if (index < span.rows) {
      return static_cast<int64_t>(span.QueryPosition(query)) - static_cast<int64_t>(rotated_at);
    }
    index -= span.rows;
  }
  return std::nullopt;
}

ScriptedStore::ScriptedStore(const GgufModel& model, Script script, Asks asks)
    : model_(model),
      rope_(model),
      script_(std::move(script)),
      asks_(asks),
      head_dim_(model.parameters().head_dim),
      row_floats_(size_t{model.parameters().kv_heads} * head_dim_),
      layers_(model.parameters().layers) {
  for (Layer& layer : layers_) {
    layer.queries.assign(asks.query_count * model.parameters().heads * head_dim_, kNaN);
  }
}

absl::StatusOr<StepView> ScriptedStore::Begin(uint32_t want) {
  if (const auto found = script_.find(rows_); found != script_.end()) Adopt(found->second);
  const auto next = script_.upper_bound(rows_);
  uint64_t count = want;
  if (next != script_.end()) count = std::min<uint64_t>(count, next->first - rows_);
  views_.clear();
  for (Layer& layer : layers_) views_.push_back(ViewOf(layer, count));
  step_rows_ = static_cast<uint32_t>(count);
  return StepView{
      .row = rows_, .count = step_rows_, .layers = views_, .mass_decay = asks_.mass_decay};
}

LayerView ScriptedStore::ViewOf(Layer& layer, uint64_t count) const {
  while (layer.recent.size() * kSlots < rows_ + count) AddBlock(layer);
  const auto stride = static_cast<uint32_t>(row_floats_ * sizeof(float));
  LayerView view;
  view.kept = layer.kept;
  view.recent = layer.views;
  view.recent_first = layer.table.recent_first;
  view.window = layer.table.window;
  view.sticky = layer.table.sticky;
  view.slots_per_block = kSlots;
  view.k_stride = view.v_stride = stride;
  view.unrotated = asks_.unrotated;
  if (asks_.mass) {
    const uint64_t kept_rows = layer.table.kept.empty() ? 0 : layer.table.kept[0].size();
    const size_t heads = model_.parameters().kv_heads;
    layer.kept_mass.assign(heads * kept_rows, 0.0F);
    layer.recent_mass.assign(heads * (rows_ + count), 0.0F);
    view.mass = {.kept = kept_rows == 0 ? nullptr : layer.kept_mass.data(),
                 .recent = layer.recent_mass.data(),
                 .kept_rows = kept_rows,
                 .recent_rows = rows_ + count};
  }
  if (asks_.query_count > 0) {
    view.queries = {.data = layer.queries.data(),
                    .first_row = asks_.query_first,
                    .count = asks_.query_count,
                    .row_floats = static_cast<uint32_t>(model_.parameters().heads * head_dim_)};
  }
  return view;
}

absl::Status ScriptedStore::Commit(std::span<const uint32_t> token_ids) {
  if (asks_.mass) {
    MassRecord record{.row = rows_, .count = step_rows_, .mass = {}};
    for (const Layer& layer : layers_) record.mass.push_back(MassOf(layer));
    masses_.push_back(std::move(record));
  }
  rows_ += token_ids.size();
  return absl::OkStatus();
}

absl::Status ScriptedStore::Truncate(uint64_t row) {
  rows_ = row;
  return absl::OkStatus();
}

// What the engine added, by original row.
std::vector<std::vector<double>> ScriptedStore::MassOf(const Layer& layer) const {
  const uint32_t heads = model_.parameters().kv_heads;
  const size_t recent_rows = layer.recent_mass.size() / heads;
  const size_t kept_rows = layer.kept_mass.size() / heads;
  std::vector<std::vector<double>> mass(heads, std::vector<double>(recent_rows));
  for (uint32_t h = 0; h < heads; ++h) {
    for (size_t i = 0; i < recent_rows; ++i) {
      mass[h][i] += static_cast<double>(layer.recent_mass[h * recent_rows + i]);
    }
    for (size_t i = 0; i < kept_rows; ++i) {
      mass[h][layer.table.KeptOf(h)[i]] += static_cast<double>(layer.kept_mass[h * kept_rows + i]);
    }
  }
  return mass;
}

void ScriptedStore::AddBlock(Layer& layer) const {
  layer.recent.emplace_back(2 * kSlots * row_floats_, kNaN);
  float* block = layer.recent.back().data();
  layer.views.push_back({.k = reinterpret_cast<std::byte*>(block),
                         .v = reinterpret_cast<std::byte*>(block + kSlots * row_floats_)});
}

// Turns the key of one head from the angle of position `from` to that of `to`.
void ScriptedStore::Turn(float* head, uint64_t from, uint64_t to) const {
  const uint32_t pairs = rope_.pairs();
  std::vector<float> back(2 * pairs), on(2 * pairs);
  rope_.Angles(from, back.data(), back.data() + pairs);
  rope_.Angles(to, on.data(), on.data() + pairs);
  for (uint32_t j = 0; j < pairs; ++j) back[pairs + j] = -back[pairs + j];
  Rotate(back.data(), back.data() + pairs, pairs, head);
  Rotate(on.data(), on.data() + pairs, pairs, head);
}

void ScriptedStore::Adopt(const std::vector<TableSpec>& tables) {
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

// Copies kept rows [at, at + rows), each kv head its own.
void ScriptedStore::FillRun(const Layer& layer, size_t at, size_t rows, float* block) const {
  const size_t stride = row_floats_ + kRowGap;
  for (size_t s = 0; s < rows; ++s) {
    for (uint32_t h = 0; h < model_.parameters().kv_heads; ++h) {
      const uint64_t row = layer.table.KeptOf(h)[at + s];
      const float* both = layer.original.at(row).data() + h * head_dim_;
      float* key = block + s * stride + h * head_dim_;
      std::copy_n(both, head_dim_, key);
      std::copy_n(both + row_floats_, head_dim_, key + kRunRows * stride);
      if (!layer.table.rotated_at.empty()) Turn(key, row, layer.table.rotated_at[at + s]);
    }
  }
}

void ScriptedStore::FillKept(Layer& layer) const {
  const size_t stride = row_floats_ + kRowGap;
  const auto& kept = layer.table.kept;
  layer.kept.clear();
  layer.blocks.clear();
  layer.positions.clear();
  for (const std::vector<uint64_t>& rows : kept) {
    layer.positions.insert(layer.positions.end(), rows.begin(), rows.end());
  }
  size_t at = 0;
  for (const KeptRunView& span : layer.table.spans) {
    for (size_t done = 0; done < span.rows; done += kRunRows) {
      const size_t rows = std::min<size_t>(kRunRows, span.rows - done);
      layer.blocks.emplace_back(2 * kRunRows * stride, kNaN);
      float* block = layer.blocks.back().data();
      FillRun(layer, at, rows, block);
      KeptRunView run = span;
      run.rows = static_cast<uint32_t>(rows);
      run.k = reinterpret_cast<const std::byte*>(block);
      run.v = reinterpret_cast<const std::byte*>(block + kRunRows * stride);
      run.k_stride = run.v_stride = static_cast<uint32_t>(stride * sizeof(float));
      run.positions = layer.positions.data() + at;
      run.head_stride = kept.size() == 1 ? 0 : static_cast<uint32_t>(kept[0].size());
      layer.kept.push_back(run);
      at += rows;
    }
  }
}

void ScriptedStore::Poison(Layer& layer) const {
  const TableSpec& table = layer.table;
  const uint64_t low = table.window == 0 || rows_ + 1 < table.window
                           ? table.recent_first
                           : std::max(table.recent_first, rows_ + 1 - table.window);
  for (uint64_t row = 0; row < low; ++row) {
    if (std::count(table.sticky.begin(), table.sticky.end(), row) != 0) continue;
    float* k = layer.recent[row / kSlots].data() + row % kSlots * row_floats_;
    std::fill_n(k, row_floats_, kNaN);
    std::fill_n(k + kSlots * row_floats_, row_floats_, kNaN);
  }
}

}  // namespace kvasir::engine::testing
