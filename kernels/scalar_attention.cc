// The plain form of attention.h: one row and one head at a time, no blocking, no vectors.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention.h"
#include "kernels/row_convert.h"

namespace kvasir::kernels::scalar {
namespace {

// Adds one row to query head `head` of the state.
void AddRow(const AttentionShape& shape, const float* q, const std::byte* k, const std::byte* v,
            size_t head, AttentionState& state) {
  float score = 0;
  for (uint32_t dim = 0; dim < shape.k_dim; ++dim) {
    score += q[dim] * LoadElement(shape.type, k, dim);
  }
  score = std::min(score * shape.scale, std::numeric_limits<float>::max());
  const float max = std::max(state.max[head], score);
  const float keep = std::exp(state.max[head] - max);
  const float weight = std::exp(score - max);
  state.max[head] = max;
  state.sum[head] = state.sum[head] * keep + weight;
  float* acc = state.acc.data() + head * shape.v_dim;
  for (uint32_t dim = 0; dim < shape.v_dim; ++dim) {
    acc[dim] = acc[dim] * keep + weight * LoadElement(shape.type, v, dim);
  }
}

}  // namespace

void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state) {
  const size_t heads = size_t{shape.kv_heads} * shape.heads;
  const size_t k_head = shape.k_dim * ElementBytes(shape.type);
  const size_t v_head = shape.v_dim * ElementBytes(shape.type);
  for (const AttentionRun& run : runs) {
    const float* set = q + run.query_set * heads * shape.k_dim;
    for (size_t row = 0; row < run.rows; ++row) {
      for (size_t head = 0; head < heads; ++head) {
        const size_t kv_head = head / shape.heads;
        AddRow(shape, set + head * shape.k_dim, run.k + row * run.k_stride + kv_head * k_head,
               run.v + row * run.v_stride + kv_head * v_head, head, state);
      }
    }
  }
}

void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries,
                const AttentionRun& run, std::span<const uint32_t> first,
                std::span<const uint32_t> last, AttentionState& state) {
  for (size_t query = 0; query < queries; ++query) {
    for (size_t row = first[query]; row < std::min(last[query], run.rows); ++row) {
      for (size_t head = 0; head < shape.heads; ++head) {
        const size_t index = query * shape.heads + head;
        AddRow(shape, q + index * shape.k_dim, run.k + row * run.k_stride,
               run.v + row * run.v_stride, index, state);
      }
    }
  }
}

}  // namespace kvasir::kernels::scalar
