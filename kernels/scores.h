// Scores of keys: the inner loops of score-based selection.
//
// Keys lie in place as runs of rows, [kv_head][dim] each, any alignment. Sums are in float. NaN
// comes out as NaN, what is too large as infinity (in a softmax as attention.h has it): not finite
// scores are the caller's to refuse before they are pooled. Thread-safe on different outputs;
// working memory belongs to the thread. Each function has a plain form in kernels::scalar, the
// yardstick of the tests.
#ifndef KVASIR_KERNELS_SCORES_H_
#define KVASIR_KERNELS_SCORES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.h"

namespace kvasir::kernels {

// `rows` consecutive key rows; row s at k + s * stride (bytes).
struct KeyRun {
  const std::byte* k = nullptr;
  uint32_t stride = 0;
  uint32_t rows = 0;
};

struct KeyShape {
  RowType type = RowType::kF16;
  uint32_t kv_heads = 1;  // of a row, one behind the other
  uint32_t dim = 64;
};

// out[t] = sum over the kv heads of q[head] . k[t][head]. q: [kv_heads][dim]. GemFilter: q is the
// last query, summed over the query heads of each group. Cost: one pass over the keys.
void DotRows(const KeyShape& shape, const float* q, std::span<const KeyRun> runs, float* out);

// Attention of the last `window` rows' queries over the keys of one kv head (shape.kv_heads is 1).
// q: [heads][window][dim], not scaled. Query w sees the entries t <= total - window + w; none where
// that is negative. out: [heads][total], summed over the queries; all entries, the window's own
// included. Source: SnapKV
// (arXiv 2404.14469), snapkv_utils.py:38-70.
void WindowMass(const KeyShape& shape, uint32_t heads, uint32_t window, float scale, const float* q,
                std::span<const KeyRun> runs, float* out);

// out[t] = -||k[t]|| of one kv head (shape.kv_heads is 1).
void KeyNormScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out);

inline constexpr float kNormFloor = 1e-12F;
inline constexpr float kCosineFloor = 1e-8F;

// out[t] = -cos(k[t], a) of one kv head (shape.kv_heads is 1), a the mean of the keys divided by
// their norms. Norms count as at least kNormFloor in the mean, kCosineFloor in the cosine. Two
// passes over the keys. Source: KeyDiff (arXiv 2504.15364), as kvpress has it.
void KeyDifferenceScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out);

enum class Pooling { kAverage, kMaximum };
// Stride 1, out.size() == in.size(). kernel is odd, >= 1. Average: zeros outside, divisor always
// `kernel`; maximum: -infinity outside. Cost: O(size * kernel / lanes). `out` is not `in`. The same
// bits on every machine, so that the choice is too.
void PoolScores(std::span<const float> in, uint32_t kernel, Pooling pooling, std::span<float> out);

// The k largest scores, k <= scores.size(): ascending indices; ties go to the lower index, and -0
// ties with 0. Partial selection, O(size). Scores must not be NaN.
std::vector<uint32_t> TopK(std::span<const float> scores, uint64_t k);

// Rows of one run and where the mass of its rows is added: row s of kv head h at
// mass[h * head_stride + s].
struct MassRun {
  AttentionRun run;
  float* mass = nullptr;
  uint64_t head_stride = 0;
};

// After AttendRuns over the same rows (any partition of them) left `state`, complete over all rows:
// adds weight * exp(score - max) / sum, summed over the query heads of each kv head, to the mass of
// every row. q as for AttendRuns. Where the state has seen nothing (sum 0) nothing is added. Cost:
// one pass over the keys.
void AddMassRuns(const AttentionShape& shape, const float* q, std::span<const MassRun> runs,
                 const AttentionState& state, float weight);

// The same after AttendTile (one kv head: shape.kv_heads is 1): query t of the tile adds
// weights[t] * ... to rows first[t] <= s < last[t]; queries of weight 0 cost nothing.
void AddMassTile(const AttentionShape& shape, const float* q, uint32_t queries, const MassRun& run,
                 std::span<const uint32_t> first, std::span<const uint32_t> last,
                 const AttentionState& state, std::span<const float> weights);

namespace scalar {
void DotRows(const KeyShape& shape, const float* q, std::span<const KeyRun> runs, float* out);
void WindowMass(const KeyShape& shape, uint32_t heads, uint32_t window, float scale, const float* q,
                std::span<const KeyRun> runs, float* out);
void KeyNormScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out);
void KeyDifferenceScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out);
void PoolScores(std::span<const float> in, uint32_t kernel, Pooling pooling, std::span<float> out);
std::vector<uint32_t> TopK(std::span<const float> scores, uint64_t k);
void AddMassRuns(const AttentionShape& shape, const float* q, std::span<const MassRun> runs,
                 const AttentionState& state, float weight);
void AddMassTile(const AttentionShape& shape, const float* q, uint32_t queries, const MassRun& run,
                 std::span<const uint32_t> first, std::span<const uint32_t> last,
                 const AttentionState& state, std::span<const float> weights);
}  // namespace scalar

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_SCORES_H_
