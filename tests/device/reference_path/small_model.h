// A transformer small enough to be computed twice in a test: two layers with random weights, of
// which only the attention is somebody else's. Pure.
#ifndef KVASIR_TESTS_DEVICE_REFERENCE_PATH_SMALL_MODEL_H_
#define KVASIR_TESTS_DEVICE_REFERENCE_PATH_SMALL_MODEL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "kernels/row_convert.h"

namespace kvasir::device::testing {

using Floats = std::vector<float>;
using Row = std::vector<uint16_t>;  // fp16: [key or value][kv_head][dim]

class SmallModel {
 public:
  static constexpr uint32_t kLayers = 2, kKvHeads = 2, kHeads = 2, kDim = 32, kVocabulary = 64;
  static constexpr uint32_t kHidden = kKvHeads * kHeads * kDim;
  static constexpr uint32_t kRowElements = 2 * kKvHeads * kDim;
  static constexpr float kScale = 0.35F;  // sharper than 1 / sqrt(dim): rows matter more

  // Stores the token's row of the layer, and attends with `q` over what it keeps of that layer.
  using Attention = std::function<Floats(uint32_t layer, const Row& row, const Floats& q)>;

  SmallModel() : random_(7), embedding_(Matrix(kVocabulary, kHidden, 1.0F)) {
    for (Layer& layer : layers_) {
      const float scale = 1.0F / std::sqrt(static_cast<float>(kHidden));
      layer = {Matrix(kHidden, kHidden, scale), Matrix(kRowElements, kHidden, scale),
               Matrix(kHidden, kHidden, scale)};
    }
  }

  // One token at one position; the scores of the next.
  Floats Step(uint32_t token, uint32_t position, const Attention& attention) const {
    Floats x(kHidden);
    for (uint32_t i = 0; i < kHidden; ++i) {
      x[i] = embedding_[token * kHidden + i] +
             std::sin(static_cast<float>(position) / static_cast<float>(1 + i));
    }
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      Normalize(x);
      const Floats numbers = Times(layers_[layer].kv, x);
      Row row(kRowElements);
      std::transform(numbers.begin(), numbers.end(), row.begin(), kernels::FloatToF16);
      const Floats y =
          Times(layers_[layer].out, attention(layer, row, Times(layers_[layer].query, x)));
      for (uint32_t i = 0; i < kHidden; ++i) x[i] += y[i];
    }
    Normalize(x);
    return Times(embedding_, x);
  }

 private:
  struct Layer {
    Floats query, kv, out;
  };

  Floats Matrix(uint32_t rows, uint32_t columns, float scale) {
    std::normal_distribution<float> normal(0.0F, scale);
    Floats matrix(uint64_t{rows} * columns);
    for (float& value : matrix) value = normal(random_);
    return matrix;
  }
  static Floats Times(const Floats& matrix, const Floats& x) {
    Floats y(matrix.size() / x.size());
    for (size_t row = 0; row < y.size(); ++row) {
      for (size_t i = 0; i < x.size(); ++i) y[row] += matrix[row * x.size() + i] * x[i];
    }
    return y;
  }
  static void Normalize(Floats& x) {
    float squares = 0;
    for (const float value : x) squares += value * value;
    const float factor = std::sqrt(static_cast<float>(x.size()) / squares);
    for (float& value : x) value *= factor;
  }

  std::mt19937 random_;
  Floats embedding_;
  Layer layers_[kLayers];
};

// The whole cache in host memory, and a mask of what counts: in double, row by row.
class MaskedCache {
 public:
  Floats Attend(uint32_t layer, const Row& row, const Floats& q) {
    using M = SmallModel;
    std::vector<Row>& rows = layers_[layer];
    rows.push_back(row);
    mask_.resize(std::max(mask_.size(), rows.size()), true);
    Floats out(q.size());
    for (uint32_t head = 0; head < M::kKvHeads * M::kHeads; ++head) {
      const uint32_t first = head / M::kHeads * M::kDim;  // of the kv head's elements in a row
      std::vector<double> sums(M::kDim);
      double weights = 0;
      for (size_t i = 0; i < rows.size(); ++i) {
        if (!mask_[i]) continue;
        double score = 0;
        for (uint32_t d = 0; d < M::kDim; ++d) {
          score += double{q[head * M::kDim + d]} * kernels::F16ToFloat(rows[i][first + d]);
        }
        const double weight = std::exp(score * double{M::kScale});
        weights += weight;
        for (uint32_t d = 0; d < M::kDim; ++d) {
          sums[d] += weight * kernels::F16ToFloat(rows[i][M::kRowElements / 2 + first + d]);
        }
      }
      for (uint32_t d = 0; d < M::kDim; ++d) {
        out[head * M::kDim + d] = static_cast<float>(sums[d] / weights);
      }
    }
    return out;
  }

  // From now on only these rows of the past count, and every new one.
  void Keep(std::span<const uint32_t> kept) {
    mask_.assign(mask_.size(), false);
    for (const uint32_t row : kept) mask_[row] = true;
  }
  const std::vector<Row>& rows(uint32_t layer) const { return layers_[layer]; }

 private:
  std::vector<Row> layers_[SmallModel::kLayers];
  std::vector<bool> mask_;
};

}  // namespace kvasir::device::testing

#endif  // KVASIR_TESTS_DEVICE_REFERENCE_PATH_SMALL_MODEL_H_
