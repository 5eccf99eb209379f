#include "tests/engine/far_store.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/retrieval/infllm_index.h"
#include "tests/engine/engine_support.h"

namespace kvasir::engine::testing {
namespace {

constexpr uint32_t kSlots = 16;
constexpr uint32_t kRowsMax = 4096;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

}  // namespace

absl::StatusOr<StepView> FarRecorder::Begin(uint32_t want) {
  absl::StatusOr<StepView> step = ForwardingStore::Begin(want);
  if (!step.ok()) return step;
  row_ = step->row;
  lookups_[row_].assign(step->layers.size(), {});
  return step;
}

absl::StatusOr<std::span<const KeptRunView>> FarRecorder::Retrieve(uint32_t layer,
                                                                   std::span<const float> query,
                                                                   std::span<const float> mass) {
  KVASIR_ASSIGN_OR_RETURN(const std::span<const KeptRunView> runs,
                          ForwardingStore::Retrieve(layer, query, mass));
  FarLookup& lookup = lookups_[row_][layer];
  lookup.query.assign(query.begin(), query.end());
  lookup.mass.assign(mass.begin(), mass.end());
  for (const KeptRunView& run : runs) {
    lookup.blocks.push_back(
        static_cast<uint32_t>((run.positions[0] - config_.n_init) / config_.block_size));
  }
  return runs;
}

FarStore::FarStore(const AttentionGeometry& geometry, const InfLlmConfig& config)
    : geometry_(geometry),
      config_(config),
      row_floats_(size_t{geometry.kv_heads} * geometry.head_dim),
      stream_(ValueOrDie(InfLlmStream::Create(config))),
      positions_(kRowsMax),
      layers_(geometry.layers) {
  std::iota(positions_.begin(), positions_.end(), 0U);
  for (Layer& layer : layers_) {
    layer.mass.resize(geometry.heads);
    layer.cache = ValueOrDie(BlockCache::Create(config));
  }
}

float* FarStore::RowOf(Layer& layer, uint64_t row, size_t plane) const {
  return layer.recent[row / kSlots].data() + (plane * kSlots + row % kSlots) * row_floats_;
}

absl::StatusOr<StepView> FarStore::Begin(uint32_t want) {
  const uint64_t count = std::min({uint64_t{want}, config_.exc_block_size, kRowsMax - rows()});
  if (count == 0) return OutOfRange("the store is full: rows={}", rows());
  views_.clear();
  for (Layer& layer : layers_) views_.push_back(ViewOf(layer, count));
  step_rows_ = static_cast<uint32_t>(count);
  return StepView{.row = rows(), .count = step_rows_, .layers = views_};
}

LayerView FarStore::ViewOf(Layer& layer, uint64_t count) {
  while (layer.recent.size() * kSlots < rows() + count) {
    layer.recent.emplace_back(2 * kSlots * row_floats_, kNaN);
    const auto row = static_cast<uint64_t>(layer.recent.size() - 1) * kSlots;
    layer.views.push_back({.k = reinterpret_cast<std::byte*>(RowOf(layer, row, 0)),
                           .v = reinterpret_cast<std::byte*>(RowOf(layer, row, 1))});
  }
  LayerView view;
  view.kept = layer.init;
  view.recent_first = stream_.remainder_first();
  view.recent_base = view.recent_first / kSlots * kSlots;
  view.recent = std::span(layer.views).subspan(view.recent_base / kSlots);
  view.window = config_.n_local;
  view.slots_per_block = kSlots;
  view.k_stride = view.v_stride = static_cast<uint32_t>(row_floats_ * sizeof(float));
  view.unrotated = true;
  view.far_position = config_.n_local - 1;
  const uint64_t mass_rows = rows() + count - view.recent_base;
  layer.step_mass.assign(geometry_.heads * mass_rows, 0.0F);
  view.mass.by_query_head = true;
  view.mass.recent = layer.step_mass.data();
  view.mass.recent_rows = mass_rows;
  return view;
}

absl::StatusOr<std::span<const KeptRunView>> FarStore::Retrieve(uint32_t index,
                                                                std::span<const float> query,
                                                                std::span<const float> mass) {
  Layer& layer = layers_[index];
  if (index == failing_) return ResourceExhausted("no memory for blocks: layer={}", index);
  if (!mass.empty()) KVASIR_RETURN_IF_ERROR(layer.cache->Update(layer.chosen, mass));
  KVASIR_ASSIGN_OR_RETURN(layer.chosen, LookupBlocks(layer.reprs, query, config_.topk));
  KVASIR_RETURN_IF_ERROR(layer.cache->Select(layer.chosen).status());
  layer.answer.clear();
  for (const uint32_t block : layer.chosen) layer.answer.push_back(layer.blocks[block]);
  return layer.answer;
}

absl::Status FarStore::Commit(std::span<const uint32_t> token_ids) {
  if (token_ids.size() != step_rows_) {
    return InvalidArgument("the step is not whole: ids={} rows={}", token_ids.size(), step_rows_);
  }
  const uint64_t base = stream_.remainder_first() / kSlots * kSlots;
  const uint64_t end = rows() + step_rows_;
  KVASIR_ASSIGN_OR_RETURN(const InfLlmAppended appended, stream_.Append(step_rows_));
  step_rows_ = 0;
  for (Layer& layer : layers_) {
    for (size_t head = 0; head < geometry_.heads; ++head) {
      layer.mass[head].resize(end);
      for (uint64_t row = base; row < end; ++row) {
        layer.mass[head][row] +=
            static_cast<double>(layer.step_mass[head * (end - base) + (row - base)]);
      }
    }
    for (uint64_t row = appended.init.first; row < appended.init.last; ++row) {
      layer.init.push_back(Move(layer, {row, row + 1}));
    }
    for (const RowRange& range : appended.sealed) KVASIR_RETURN_IF_ERROR(Seal(layer, range));
  }
  return absl::OkStatus();
}

absl::Status FarStore::Truncate(uint64_t row) {
  return FailedPrecondition("sealed blocks cannot be taken back: row={}", row);
}

// Copies the rows out of the recent blocks and poisons these.
KeptRunView FarStore::Move(Layer& layer, RowRange range) {
  const uint64_t rows = range.last - range.first;
  std::vector<float> copy(2 * rows * row_floats_);
  for (size_t plane = 0; plane < 2; ++plane) {
    for (uint64_t i = 0; i < rows; ++i) {
      float* row = RowOf(layer, range.first + i, plane);
      std::copy_n(row, row_floats_, copy.data() + (plane * rows + i) * row_floats_);
      std::fill_n(row, row_floats_, kNaN);
    }
  }
  layer.far.push_back(std::move(copy));
  const float* k = layer.far.back().data();
  const auto stride = static_cast<uint32_t>(row_floats_ * sizeof(float));
  return {.k = reinterpret_cast<const std::byte*>(k),
          .v = reinterpret_cast<const std::byte*>(k + rows * row_floats_),
          .rows = static_cast<uint32_t>(rows),
          .k_stride = stride,
          .v_stride = stride,
          .positions = positions_.data() + range.first};
}

absl::Status FarStore::Seal(Layer& layer, RowRange range) {
  layer.blocks.push_back(Move(layer, range));
  const KeptRunView& block = layer.blocks.back();
  const kernels::KeyRun run = {.k = block.k, .stride = block.k_stride, .rows = block.rows};
  std::vector<float> mass;
  for (const std::vector<double>& head : layer.mass) {
    for (uint64_t row = range.first; row < range.last; ++row) {
      mass.push_back(static_cast<float>(head[row]));
    }
  }
  KVASIR_ASSIGN_OR_RETURN(
      const std::vector<float> repr,
      BlockRepresentative({kernels::RowType::kF32, geometry_.kv_heads, geometry_.head_dim},
                          geometry_.heads, {&run, 1}, mass, config_.repr_topk));
  layer.reprs.insert(layer.reprs.end(), repr.begin(), repr.end());
  return absl::OkStatus();
}

}  // namespace kvasir::engine::testing
