// Attention of a few queries over records, in place: what kernels/attention.h does for rows.
//
// Adds to the same AttentionState, so rows and records of one cache are attended in any order.
// Thread-safe on different states; working memory belongs to the thread and is reused.
#ifndef KVASIR_KERNELS_ENCODING_RECORD_ATTENTION_H_
#define KVASIR_KERNELS_ENCODING_RECORD_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/encoding/record.h"

namespace kvasir::kernels {

// One block: the records of its kv heads lie one behind the other, RecordBytes() apart. Every query
// of AttendRecords sees the rows [first, last).
struct RecordRun {
  const std::byte* k = nullptr;  // of kv head 0
  const std::byte* v = nullptr;
  uint32_t first = 0;
  uint32_t last = 0;       // <= rows of the shapes
  uint32_t query_set = 0;  // which rotation of the query these keys take
};

// REQUIRES: k.rows == v.rows.
struct RecordAttention {
  RecordShape k, v;
  uint32_t heads = 1;     // query heads that share a kv head
  uint32_t kv_heads = 1;  // AttendRecords only
  float scale = 1.0F;     // applied to q . k
};

// Adds the rows of `runs` to the state of kv_heads * heads queries. q:
// [query_set][kv_head][heads][k.dims]. Scores of -infinity weigh nothing, those above the largest
// float count as that. Cost: one pass over the codes.
void AttendRecords(const RecordAttention& shape, const float* q, std::span<const RecordRun> runs,
                   AttentionState& state);

// Adds the rows of one kv head's records of `run` to `queries` consecutive queries at once, for
// prefill: query t sees rows s with first[t] <= s < last[t]. q: [t][heads][k.dims]; state of
// queries * heads query heads, [t][head]. The record is decoded once for all queries, into memory
// of the thread that stays in the first-level caches. run.first, last and query_set are not looked
// at.
void AttendRecordTile(const RecordAttention& shape, const float* q, uint32_t queries,
                      const RecordRun& run, std::span<const uint32_t> first,
                      std::span<const uint32_t> last, AttentionState& state);

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_RECORD_ATTENTION_H_
