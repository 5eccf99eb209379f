#include "client/examples/toy_transformer.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "client/examples/asked_attention.h"

namespace kvasir::examples {
namespace {

constexpr uint32_t kRowFloats = ToyTransformer::kKvHeads * ToyTransformer::kHeadDim;

std::vector<float> Normed(std::span<const float> x) {
  float sum = 1e-6F;
  for (const float value : x) sum += value * value;
  const float scale = std::sqrt(static_cast<float>(x.size()) / sum);
  std::vector<float> out(x.begin(), x.end());
  for (float& value : out) value *= scale;
  return out;
}

void AddTo(std::vector<float>& x, std::span<const float> y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

}  // namespace

void AttendAs(const LayerView& view, const StepView& step, uint64_t row, const HeadShape& shape,
              std::span<const float> q, std::span<float> out) {
  if (!view.unrotated && view.mass.kept == nullptr && view.mass.recent == nullptr) {
    return AttendHead(view, row, shape, q, out);
  }
  const auto behind = static_cast<double>(step.row + step.count - 1 - row);
  AttendAsked(view, row, std::pow(step.mass_decay, behind), shape, q, out);
}

void AttendLayer(const StepView& step, uint32_t layer, uint64_t row, const HeadShape& shape,
                 std::span<const float> q, std::span<float> out) {
  AttendAs(step.layers[layer], step, row, shape, q, out);
}

ToyTransformer::ToyTransformer() {
  std::mt19937_64 random(20);
  const auto make = [&random](uint32_t rows, uint32_t columns) {
    Matrix matrix{rows, columns, std::vector<float>(size_t{rows} * columns)};
    const float scale = std::sqrt(3.0F / static_cast<float>(columns));
    for (float& value : matrix.values) {
      value = scale * (static_cast<float>(random() % 20001) / 10000.0F - 1.0F);
    }
    return matrix;
  };
  embedding_ = make(kVocabulary, kWidth);
  for (uint32_t i = 0; i < kLayers; ++i) {
    layers_.push_back({make(kQueryHeads * kHeadDim, kWidth), make(kRowFloats, kWidth),
                       make(kRowFloats, kWidth), make(kWidth, kQueryHeads * kHeadDim),
                       make(kWidth, kWidth)});
  }
}

ModelSpec ToyTransformer::Spec() {
  ModelSpec spec;
  spec.name = "toy transformer";
  spec.kv_type = KvType::kF32;
  spec.layers.assign(kLayers, LayerSpec{.kv_heads = kKvHeads,
                                        .k_head_dim = kHeadDim,
                                        .v_head_dim = kHeadDim,
                                        .query_heads = kQueryHeads});
  spec.rope = RopeStyle::kInterleaved;
  spec.rope_dims = kHeadDim;
  spec.vocabulary_size = kVocabulary;
  spec.slots_per_block = kSlotsPerBlock;
  spec.weights_digest = "random numbers of the seed twenty";
  return spec;
}

std::vector<float> ToyTransformer::Times(const Matrix& matrix, std::span<const float> x) {
  std::vector<float> out(matrix.rows);
  for (uint32_t i = 0; i < matrix.rows; ++i) {
    out[i] = Dot(x, matrix.values.data() + size_t{i} * matrix.columns);
  }
  return out;
}

std::vector<float> ToyTransformer::Compute(const StepView& step, std::span<const uint32_t> ids,
                                           const Attention& attend) const {
  constexpr double kTheta = 10000.0;  // as ModelSpec has it
  std::vector<std::vector<float>> x;
  for (const uint32_t id : ids) {
    const float* const row = embedding_.values.data() + size_t{id} * kWidth;
    x.emplace_back(row, row + kWidth);
  }
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const Layer& weights = layers_[layer];
    const LayerView& view = step.layers[layer];
    // Keys and values of all rows first: queries of later rows of the step meet them.
    for (uint32_t t = 0; t < step.count; ++t) {
      const uint64_t row = step.row + t;
      const std::vector<float> in = Normed(x[t]);
      const std::vector<float> k = Times(weights.k, in), v = Times(weights.v, in);
      auto* const key = reinterpret_cast<float*>(view.KeyOf(row));
      for (uint32_t at = 0; at < kRowFloats; at += kHeadDim) {
        Rotate(std::span(k).subspan(at, kHeadDim), view.unrotated ? 0 : row, kTheta,
               std::span(key + at, kHeadDim));
      }
      std::copy(v.begin(), v.end(), reinterpret_cast<float*>(view.ValueOf(row)));
    }
    for (uint32_t t = 0; t < step.count; ++t) {
      const std::vector<float> q = Times(weights.q, Normed(x[t]));
      std::vector<float> heads(q.size());
      for (uint32_t head = 0; head < kQueryHeads; ++head) {
        const size_t at = size_t{head} * kHeadDim;
        attend(step, layer, step.row + t,
               {head * kKvHeads / kQueryHeads, kHeadDim, kHeadDim, kTheta},
               std::span(q).subspan(at, kHeadDim), std::span(heads).subspan(at, kHeadDim));
      }
      AddTo(x[t], Times(weights.out, heads));
      std::vector<float> mixed = Times(weights.mix, Normed(x[t]));
      for (float& value : mixed) value = std::tanh(value);
      AddTo(x[t], mixed);
    }
  }
  return Times(embedding_, Normed(x.back()));
}

absl::StatusOr<StepView> ToyRows::Begin(uint32_t want) {
  constexpr uint32_t kSlots = ToyTransformer::kSlotsPerBlock;
  blocks_.resize(ToyTransformer::kLayers);
  recent_.assign(ToyTransformer::kLayers, {});
  views_.assign(ToyTransformer::kLayers, {});
  for (uint32_t layer = 0; layer < ToyTransformer::kLayers; ++layer) {
    auto& blocks = blocks_[layer];
    while (blocks.size() * kSlots < rows_ + want) blocks.emplace_back(2 * kSlots * kRowFloats);
    for (std::vector<float>& block : blocks) {
      recent_[layer].push_back(
          {reinterpret_cast<std::byte*>(block.data()),
           reinterpret_cast<std::byte*>(block.data() + size_t{kSlots} * kRowFloats)});
    }
    LayerView& view = views_[layer];
    view.recent = recent_[layer];
    view.slots_per_block = kSlots;
    view.k_stride = view.v_stride = kRowFloats * sizeof(float);
  }
  return StepView{rows_, want, views_, 1.0};
}

absl::Status ToyRows::Commit(std::span<const uint32_t> ids) {
  rows_ += ids.size();
  return absl::OkStatus();
}

}  // namespace kvasir::examples
