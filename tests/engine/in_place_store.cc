#include "tests/engine/in_place_store.h"

#include <algorithm>
#include <utility>

namespace kvasir::engine::testing {

InPlaceStore::InPlaceStore(const GgufModel& model, Oracle oracle, uint64_t rows_max)
    : oracle_(std::move(oracle)),
      rows_max_(rows_max),
      row_bytes_(model.parameters().kv_heads * model.parameters().head_dim *
                 static_cast<uint32_t>(sizeof(float))),
      layers_(model.parameters().layers) {
  for (Layer& layer : layers_) {
    layer.k.resize(rows_max * row_bytes_ / sizeof(float));
    layer.v.resize(layer.k.size());
    layer.block = {.k = reinterpret_cast<std::byte*>(layer.k.data()),
                   .v = reinterpret_cast<std::byte*>(layer.v.data())};
  }
}

void InPlaceStore::FillKept(const OracleTable& table, Layer& layer) const {
  layer.kept.clear();
  const FrontKey* last = nullptr;
  for (const FrontKey& key : table.front) {
    const bool joins = last != nullptr && key.row == last->row + 1 && key.offset == last->offset &&
                       key.query_max == last->query_max;
    last = &key;
    if (joins) {
      ++layer.kept.back().rows;
      continue;
    }
    layer.kept.push_back({.k = layer.block.k + key.row * row_bytes_,
                          .v = layer.block.v + key.row * row_bytes_,
                          .rows = 1,
                          .k_stride = row_bytes_,
                          .v_stride = row_bytes_,
                          .query_offset = key.offset,
                          .query_max = key.query_max});
  }
}

absl::StatusOr<StepView> InPlaceStore::Begin(uint32_t want) {
  uint64_t end = std::min(rows_max_, rows_ + want);
  for (const auto& oracle : oracle_) end = std::min(end, oracle->TableOf(rows_).until);
  views_.clear();
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    LayerView view{.kept = {},
                   .records = {},
                   .recent = {&layer.block, 1},
                   .sticky = {},
                   .slots_per_block = static_cast<uint32_t>(rows_max_),
                   .k_stride = row_bytes_,
                   .v_stride = row_bytes_,
                   .mass = {},
                   .queries = {}};
    if (!oracle_.empty()) {
      const OracleTable& table = oracle_[i]->TableOf(rows_);
      FillKept(table, layer);
      view.kept = layer.kept;
      view.recent_first = table.run_first;
      view.window = table.window;
      const auto past = std::lower_bound(table.stays.begin(), table.stays.end(), end);
      view.sticky = {table.stays.begin(), past};
    }
    views_.push_back(view);
  }
  return StepView{.row = rows_, .count = static_cast<uint32_t>(end - rows_), .layers = views_};
}

absl::Status InPlaceStore::Commit(std::span<const uint32_t> token_ids) {
  rows_ += token_ids.size();
  return absl::OkStatus();
}

absl::Status InPlaceStore::Truncate(uint64_t row) {
  rows_ = row;
  return absl::OkStatus();
}

}  // namespace kvasir::engine::testing
