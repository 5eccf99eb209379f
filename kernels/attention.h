// Attention of a few queries over rows that lie in place in blocks: inner loop of decode and
// prefill.
//
// Online softmax (Milakov and Gimelshein, arXiv:1805.02867): an AttentionState accumulates over any
// number of calls, in any order, and states of several threads can be merged. Sums are in float.
// Thread-safe on different states; working memory belongs to the thread and is reused. Rows may lie
// at any address. Scores of -infinity weigh nothing, those above the largest float count as that.
#ifndef KVASIR_KERNELS_ATTENTION_H_
#define KVASIR_KERNELS_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvasir::kernels {

// Of a row's elements. kE4M3 is fp8 as OCP and CUDA have it: no infinity, 448 the largest. Rows of
// it are at home on GPUs (kernels/cuda): here they go through the plain code, at its speed.
enum class RowType { kF16, kBF16, kF32, kE4M3 };

// `rows` consecutive rows, of one kv head or more: key of row s at k + s * k_stride (bytes), value
// likewise.
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
  uint32_t heads = 1;   // query heads that share the kv head
  uint32_t k_dim = 64;  // elements of a key
  uint32_t v_dim = 64;  // elements of a value
  float scale = 1.0F;   // applied to q . k
  // AttendRuns only: kv heads that lie one behind the other in a row, [kv_head][dim], and are all
  // attended. One pass over whole rows instead of one a kv head: fewer page walks, lines in order.
  uint32_t kv_heads = 1;
};

// Running softmax of some query heads: max[head], sum[head], acc[head][v_dim]. max is the lowest
// finite float where nothing was seen.
struct AttentionState {
  std::vector<float> max, sum, acc;
  // Makes the state of "nothing seen" for `queries` query heads in all.
  void Reset(uint32_t queries, uint32_t v_dim);
};

// Adds all rows of `runs` to the state of kv_heads * heads queries. q:
// [query_set][kv_head][heads][k_dim]. Cost: one pass over the rows; every row comes from memory
// once for all heads. Runs may be of any length, but a change of query_set ends a tile of rows: put
// runs of one set side by side.
void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state);

// Adds the rows of `run` to `queries` consecutive queries at once, for prefill: query t sees rows s
// with first[t] <= s < last[t] (indices into the run). q: [t][heads][k_dim]; state of queries *
// heads query heads, [t][head]. Cost: 64 rows are converted at a time, once for all queries, so the
// longer the run and the more the queries the better; run.query_set is not looked at.
void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries,
                const AttentionRun& run, std::span<const uint32_t> first,
                std::span<const uint32_t> last, AttentionState& state);

// into += from; both of the same size.
void MergeStates(AttentionState& into, const AttentionState& from, uint32_t v_dim);

// out[query head][v_dim] = acc / sum; zeros where nothing was seen.
void FinishState(const AttentionState& state, uint32_t v_dim, float* out);

// The same functions in plain scalar code, the yardstick of the tests.
namespace scalar {
void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state);
void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries,
                const AttentionRun& run, std::span<const uint32_t> first,
                std::span<const uint32_t> last, AttentionState& state);
}  // namespace scalar

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ATTENTION_H_
