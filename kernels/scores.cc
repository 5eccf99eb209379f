#include "kernels/scores.h"

#include "base/check.h"

namespace kvasir::kernels {

void DotRows(const KeyShape& shape, const float* q, std::span<const KeyRun> runs, float* out) {
  scalar::DotRows(shape, q, runs, out);
}

void WindowMass(const KeyShape& shape, uint32_t heads, uint32_t window, float scale, const float* q,
                std::span<const KeyRun> runs, float* out) {
  KVASIR_CHECK(shape.kv_heads == 1, "window mass of {} kv heads", shape.kv_heads);
  scalar::WindowMass(shape, heads, window, scale, q, runs, out);
}

void KeyNormScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
  KVASIR_CHECK(shape.kv_heads == 1, "key norms of {} kv heads", shape.kv_heads);
  scalar::KeyNormScores(shape, runs, out);
}

void KeyDifferenceScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
  KVASIR_CHECK(shape.kv_heads == 1, "key differences of {} kv heads", shape.kv_heads);
  scalar::KeyDifferenceScores(shape, runs, out);
}

void PoolScores(std::span<const float> in, uint32_t kernel, Pooling pooling, std::span<float> out) {
  KVASIR_CHECK(kernel % 2 == 1, "a pooling kernel of {}", kernel);
  KVASIR_CHECK(out.size() == in.size(), "pooling {} scores into {}", in.size(), out.size());
  scalar::PoolScores(in, kernel, pooling, out);
}

std::vector<uint32_t> TopK(std::span<const float> scores, uint64_t k) {
  KVASIR_CHECK(k <= scores.size(), "the top {} of {} scores", k, scores.size());
  return scalar::TopK(scores, k);
}

void AddMassRuns(const AttentionShape& shape, const float* q, std::span<const MassRun> runs,
                 const AttentionState& state, float weight) {
  KVASIR_CHECK(state.max.size() == size_t{shape.kv_heads} * shape.heads,
               "a state of {} query heads for {} x {}", state.max.size(), shape.kv_heads,
               shape.heads);
  scalar::AddMassRuns(shape, q, runs, state, weight);
}

void AddMassTile(const AttentionShape& shape, const float* q, uint32_t queries, const MassRun& run,
                 std::span<const uint32_t> first, std::span<const uint32_t> last,
                 const AttentionState& state, std::span<const float> weights) {
  KVASIR_CHECK(shape.kv_heads == 1, "a tile of {} kv heads", shape.kv_heads);
  KVASIR_CHECK(first.size() >= queries && last.size() >= queries && weights.size() >= queries,
               "{} queries with {} and {} range ends and {} weights", queries, first.size(),
               last.size(), weights.size());
  KVASIR_CHECK(state.max.size() == size_t{queries} * shape.heads,
               "a state of {} query heads for {} queries", state.max.size(), queries);
  scalar::AddMassTile(shape, q, queries, run, first, last, state, weights);
}

}  // namespace kvasir::kernels
