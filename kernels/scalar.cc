#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/attention.h"

namespace kvasir::kernels {
namespace {

constexpr float kNothing = -1e30F;

float HalfToFloat(uint16_t half) {
  _Float16 value;
  std::memcpy(&value, &half, sizeof(value));
  return static_cast<float>(value);
}

float ElementAt(RowType type, const std::byte* row, uint32_t index) {
  if (type == RowType::kF32) {
    float value = 0;
    std::memcpy(&value, row + size_t{index} * 4, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, row + size_t{index} * 2, 2);
  if (type == RowType::kF16) return HalfToFloat(bits);
  const uint32_t wide = uint32_t{bits} << 16;
  float value = 0;
  std::memcpy(&value, &wide, 4);
  return value;
}

void AddRow(const AttentionShape& shape, const float* q, const std::byte* k, const std::byte* v,
            size_t head, AttentionState& state) {
  float score = 0;
  for (uint32_t d = 0; d < shape.k_dim; ++d) score += q[d] * ElementAt(shape.type, k, d);
  score *= shape.scale;
  const float max = std::max(state.max[head], score);
  const float old = std::exp(state.max[head] - max);
  const float weight = std::exp(score - max);
  state.max[head] = max;
  state.sum[head] = state.sum[head] * old + weight;
  float* acc = state.acc.data() + head * shape.v_dim;
  for (uint32_t d = 0; d < shape.v_dim; ++d) {
    acc[d] = acc[d] * old + weight * ElementAt(shape.type, v, d);
  }
}

}  // namespace

void AttentionState::Reset(uint32_t queries, uint32_t v_dim) {
  max.assign(queries, kNothing);
  sum.assign(queries, 0.0F);
  acc.assign(size_t{queries} * v_dim, 0.0F);
}

void MergeStates(AttentionState& into, const AttentionState& from, uint32_t v_dim) {
  for (size_t head = 0; head < into.max.size(); ++head) {
    const float max = std::max(into.max[head], from.max[head]);
    const float a = std::exp(into.max[head] - max);
    const float b = std::exp(from.max[head] - max);
    into.max[head] = max;
    into.sum[head] = into.sum[head] * a + from.sum[head] * b;
    for (size_t d = head * v_dim; d < (head + 1) * v_dim; ++d) {
      into.acc[d] = into.acc[d] * a + from.acc[d] * b;
    }
  }
}

void FinishState(const AttentionState& state, uint32_t v_dim, float* out) {
  for (size_t i = 0; i < state.acc.size(); ++i) {
    const float sum = state.sum[i / v_dim];
    out[i] = sum > 0.0F ? state.acc[i] / sum : 0.0F;
  }
}

namespace scalar {

void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state) {
  for (const AttentionRun& run : runs) {
    const float* set = q + size_t{run.query_set} * shape.heads * shape.k_dim;
    for (uint32_t s = 0; s < run.rows; ++s) {
      for (uint32_t head = 0; head < shape.heads; ++head) {
        AddRow(shape, set + size_t{head} * shape.k_dim, run.k + size_t{s} * run.k_stride,
               run.v + size_t{s} * run.v_stride, head, state);
      }
    }
  }
}

void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries,
                const AttentionRun& run, std::span<const uint32_t> first,
                std::span<const uint32_t> last, AttentionState& state) {
  for (uint32_t t = 0; t < queries; ++t) {
    for (uint32_t s = first[t]; s < last[t]; ++s) {
      for (uint32_t head = 0; head < shape.heads; ++head) {
        const size_t at = size_t{t} * shape.heads + head;
        AddRow(shape, q + at * shape.k_dim, run.k + size_t{s} * run.k_stride,
               run.v + size_t{s} * run.v_stride, at, state);
      }
    }
  }
}

}  // namespace scalar

void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state) {
  scalar::AttendRuns(shape, q, runs, state);
}

void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries,
                const AttentionRun& run, std::span<const uint32_t> first,
                std::span<const uint32_t> last, AttentionState& state) {
  scalar::AttendTile(shape, q, queries, run, first, last, state);
}

}  // namespace kvasir::kernels
