// The plain form of scores.h: one row and one query at a time, no blocking, no vectors.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/row_convert.h"
#include "kernels/scores.h"

namespace kvasir::kernels::scalar {
namespace {

float Dot(RowType type, const float* q, const std::byte* k, uint32_t dim) {
  float sum = 0;
  for (uint32_t i = 0; i < dim; ++i) {
    sum += q[i] * LoadElement(type, k, i);
  }
  return sum;
}

float Norm(RowType type, const std::byte* k, uint32_t dim) {
  float squares = 0;
  for (uint32_t i = 0; i < dim; ++i) {
    const float x = LoadElement(type, k, i);
    squares += x * x;
  }
  return std::sqrt(squares);
}

// The rows of all runs, one behind the other.
std::vector<const std::byte*> RowsOf(std::span<const KeyRun> runs) {
  std::vector<const std::byte*> rows;
  for (const KeyRun& run : runs) {
    for (size_t row = 0; row < run.rows; ++row) {
      rows.push_back(run.k + row * run.stride);
    }
  }
  return rows;
}

// Share of one key in the finished softmax of query head `head`.
float Share(const AttentionShape& shape, const float* q, const std::byte* k,
            const AttentionState& state, size_t head) {
  if (state.sum[head] == 0.0F) {
    return 0;
  }
  const float score =
      std::min(Dot(shape.type, q, k, shape.k_dim) * shape.scale, std::numeric_limits<float>::max());
  return std::exp(score - state.max[head]) / state.sum[head];
}

}  // namespace

void DotRows(const KeyShape& shape, const float* q, std::span<const KeyRun> runs, float* out) {
  const size_t head_bytes = shape.dim * ElementBytes(shape.type);
  for (const std::byte* row : RowsOf(runs)) {
    float sum = 0;
    for (size_t head = 0; head < shape.kv_heads; ++head) {
      sum += Dot(shape.type, q + head * shape.dim, row + head * head_bytes, shape.dim);
    }
    *out++ = sum;
  }
}

void WindowMass(const KeyShape& shape, uint32_t heads, uint32_t window, float scale, const float* q,
                std::span<const KeyRun> runs, float* out) {
  const auto rows = RowsOf(runs);
  std::fill(out, out + heads * rows.size(), 0.0F);
  std::vector<float> scores(rows.size());
  for (size_t query = 0; query < size_t{heads} * window; ++query) {
    const size_t ahead = window - 1 - query % window;  // rows behind this query's own
    if (ahead >= rows.size()) {
      continue;
    }
    const size_t visible = rows.size() - ahead;
    float max = std::numeric_limits<float>::lowest();
    for (size_t row = 0; row < visible; ++row) {
      scores[row] = std::min(Dot(shape.type, q + query * shape.dim, rows[row], shape.dim) * scale,
                             std::numeric_limits<float>::max());
      max = std::max(max, scores[row]);
    }
    float sum = 0;
    for (size_t row = 0; row < visible; ++row) {
      scores[row] = std::exp(scores[row] - max);
      sum += scores[row];
    }
    float* mass = out + query / window * rows.size();
    for (size_t row = 0; row < visible; ++row) {
      mass[row] += scores[row] / sum;
    }
  }
}

void KeyNormScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
  for (const std::byte* row : RowsOf(runs)) {
    *out++ = -Norm(shape.type, row, shape.dim);
  }
}

void KeyDifferenceScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
  const auto rows = RowsOf(runs);
  std::vector<float> anchor(shape.dim);
  for (const std::byte* row : rows) {
    const float norm = std::max(Norm(shape.type, row, shape.dim), kNormFloor);
    for (uint32_t i = 0; i < shape.dim; ++i) {
      anchor[i] += LoadElement(shape.type, row, i) / norm;
    }
  }
  for (float& x : anchor) {
    x /= static_cast<float>(rows.size());
  }
  const float length =
      std::sqrt(std::inner_product(anchor.begin(), anchor.end(), anchor.begin(), 0.0F));
  for (const std::byte* row : rows) {
    const float norm = std::max(Norm(shape.type, row, shape.dim), kCosineFloor);
    *out++ =
        -Dot(shape.type, anchor.data(), row, shape.dim) / norm / std::max(length, kCosineFloor);
  }
}

void PoolScores(std::span<const float> in, uint32_t kernel, Pooling pooling, std::span<float> out) {
  const size_t half = kernel / 2;
  const bool average = pooling == Pooling::kAverage;
  for (size_t at = 0; at < in.size(); ++at) {
    const size_t first = at - std::min(at, half);
    const size_t last = std::min(in.size() - 1 - at, half) + at;
    float pooled = average ? 0.0F : -std::numeric_limits<float>::infinity();
    for (size_t i = first; i <= last; ++i) {
      pooled = average ? pooled + in[i] : std::max(pooled, in[i]);
    }
    out[at] = average ? pooled / static_cast<float>(kernel) : pooled;
  }
}

std::vector<uint32_t> TopK(std::span<const float> scores, uint64_t k) {
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  order.resize(k);
  std::sort(order.begin(), order.end());
  return order;
}

void AddMassRuns(const AttentionShape& shape, const float* q, std::span<const MassRun> runs,
                 const AttentionState& state, float weight) {
  const size_t head_bytes = shape.k_dim * ElementBytes(shape.type);
  const size_t heads = size_t{shape.kv_heads} * shape.heads;
  for (const MassRun& it : runs) {
    const float* set = q + it.run.query_set * heads * shape.k_dim;
    for (size_t row = 0; row < it.run.rows; ++row) {
      for (size_t head = 0; head < heads; ++head) {
        const size_t kv_head = head / shape.heads;
        const std::byte* k = it.run.k + row * it.run.k_stride + kv_head * head_bytes;
        it.mass[kv_head * it.head_stride + row] +=
            weight * Share(shape, set + head * shape.k_dim, k, state, head);
      }
    }
  }
}

void AddMassTile(const AttentionShape& shape, const float* q, uint32_t queries, const MassRun& run,
                 std::span<const uint32_t> first, std::span<const uint32_t> last,
                 const AttentionState& state, std::span<const float> weights) {
  for (size_t query = 0; query < queries; ++query) {
    if (weights[query] == 0.0F) {
      continue;
    }
    for (size_t row = first[query]; row < std::min(last[query], run.run.rows); ++row) {
      for (size_t head = 0; head < shape.heads; ++head) {
        const size_t index = query * shape.heads + head;
        run.mass[row] += weights[query] * Share(shape, q + index * shape.k_dim,
                                                run.run.k + row * run.run.k_stride, state, index);
      }
    }
  }
}

}  // namespace kvasir::kernels::scalar
