// Attention over rows whose values are coded one by one (row_code.h) and whose keys lie as written:
// what kernels/attention.h does for plain rows.
//
// Scores are those of plain rows, so that attention mass and scores of keys need nothing else.
// Weighted codes are added in the turned space, 64 rows at a time, and the sum is turned back: rows
// are never made. Adds to the same AttentionState, so all rows of a cache are attended in any
// order. Thread-safe on different states; working memory belongs to the thread and is reused.
#ifndef KVASIR_KERNELS_ENCODING_CODED_VALUES_H_
#define KVASIR_KERNELS_ENCODING_CODED_VALUES_H_

#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/encoding/row_code.h"

namespace kvasir::kernels {

// REQUIRES: CheckRotatedRow(value) holds and value.dims == rows.v_dim.
struct CodedAttention {
  AttentionShape rows;
  RotatedRow value;
};

// AttendRuns() where `v` of a run is the code of kv head 0 of its first row, the codes of a row's
// kv heads lie RotatedRowBytes() apart, and those of neighbouring rows v_stride. Cost: one pass
// over keys and codes, and a turn of v_dim elements for each query head and 64 rows.
void AttendCodedRuns(const CodedAttention& shape, const float* q,
                     std::span<const AttentionRun> runs, AttentionState& state);

// AttendTile() over one kv head of such a run. Rows become floats once for all queries, 64 at a
// time, in memory of the thread.
void AttendCodedTile(const CodedAttention& shape, const float* q, uint32_t queries,
                     const AttentionRun& run, std::span<const uint32_t> first,
                     std::span<const uint32_t> last, AttentionState& state);

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_CODED_VALUES_H_
