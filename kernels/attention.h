// Attention of a few queries over rows that lie in place in blocks: the decode and prefill inner loop.
//
// Online softmax: an AttentionState accumulates over any number of calls, in any order, and states of
// several threads can be merged. All functions are thread-safe (no globals but the dispatch table).
#ifndef KVASIR_KERNELS_ATTENTION_H_
#define KVASIR_KERNELS_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvasir::kernels {

enum class RowType { kF16, kBF16, kF32 };

// `rows` consecutive rows of one kv head: key of row s at k + s * k_stride (bytes), value likewise.
struct AttentionRun {
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  uint32_t k_stride = 0;
  uint32_t v_stride = 0;
  uint32_t rows = 0;
  uint32_t query_set = 0;  // which rotation of the query these keys take
};

struct AttentionShape {
  RowType type = RowType::kF16;
  uint32_t heads = 1;       // query heads that share the kv head
  uint32_t k_dim = 64;      // elements of a key
  uint32_t v_dim = 64;      // elements of a value
  float scale = 1.0F;       // applied to q . k
};

// Running softmax of one kv head's queries: max[head], sum[head], acc[head][v_dim].
struct AttentionState {
  std::vector<float> max, sum, acc;
  // Makes the state of "nothing seen" for `queries` query heads in all.
  void Reset(uint32_t queries, uint32_t v_dim);
};

// Adds all rows of `runs` to the state. q: [query_set][heads][k_dim].
// Cost: one pass over the rows; every row is read once for all heads.
void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state);

// Adds the rows of `run` to `queries` consecutive queries at once, for prefill: query t sees rows
// s with first[t] <= s < last[t] (indices into the run). q: [t][heads][k_dim]; state of queries * heads
// query heads, [t][head]. Cost: rows are read once for a tile of queries.
void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries, const AttentionRun& run,
                std::span<const uint32_t> first, std::span<const uint32_t> last,
                AttentionState& state);

// into += from; both of the same size.
void MergeStates(AttentionState& into, const AttentionState& from, uint32_t v_dim);

// out[query head][v_dim] = acc / sum; zeros where nothing was seen.
void FinishState(const AttentionState& state, uint32_t v_dim, float* out);

// The same functions in plain scalar code, the yardstick of the tests.
namespace scalar {
void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state);
void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries, const AttentionRun& run,
                std::span<const uint32_t> first, std::span<const uint32_t> last,
                AttentionState& state);
}  // namespace scalar

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ATTENTION_H_
