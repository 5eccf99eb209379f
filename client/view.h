// What an engine reads and writes: the rows of one sequence in one layer, in place in shared
// memory.
//
// Plain values; valid from Sequence::Begin() to the next Begin() or Commit() of the same sequence.
// The attention of the query of row i over a LayerView (original or in-cache positions alike):
//   for each run of `kept`:   all rows, query rotated at run.QueryPosition(i)
//   for each of `records`:    all its rows, or where it is windowed those in the window, see
//                             RecordView; query rotated at record.QueryPosition(i)
//   for each row p of recent with max(recent_first, i + 1 - window) <= p <= i: query rotated at i
//   for each row p of `sticky` below that bound: query rotated at i
// Keys of recent rows are written rotated at their row number.
#ifndef KVASIR_CLIENT_VIEW_H_
#define KVASIR_CLIENT_VIEW_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace kvasir {

// Position of the query of row `row` for keys that lie `offset` before their row, at most `max`.
inline uint64_t QueryPositionOf(uint64_t row, int64_t offset, uint64_t max) {
  return std::min(static_cast<uint64_t>(static_cast<int64_t>(row) - offset), max);
}

// Consecutive slots of one sealed block of one layer. K row of slot s: k + s * k_stride, and so V;
// a row is [kv_head][head_dim] in the model spec's dtype.
struct KeptRunView {
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  uint32_t rows = 0;
  uint32_t k_stride = 0;  // bytes
  uint32_t v_stride = 0;  // bytes
  int64_t query_offset = 0;
  uint64_t query_max = std::numeric_limits<uint64_t>::max();
  const uint32_t* positions = nullptr;  // original position of each row: `rows` entries
  const uint32_t* tokens = nullptr;     // token id of each row: `rows` entries
  // Bits of an element of V where each row of a kv head is coded by itself (docs/encodings.md;
  // kernels/encoding/coded_values.h attends them): then V of slot s and head h is the code at
  // v + s * v_stride + h * (v_stride / kv heads). 0: as K.
  uint32_t v_bits = 0;
  // Where each kv head keeps rows of its own: those of head h at positions + h * head_stride, and
  // so the tokens. 0: all heads keep the same rows.
  uint32_t head_stride = 0;

  uint64_t QueryPosition(uint64_t row) const {
    return QueryPositionOf(row, query_offset, query_max);
  }
};

// How a record is encoded (docs/encodings.md; kernels/encoding/record.h reads them).
enum class RecordCodec : uint8_t { kAsWritten = 0, kInt8 = 1, kInt4 = 2, kTokenMixed = 3 };

// The records of one layer: the rows of a record, and of one kv head's record its codec, the bit
// planes of all channels together (kTokenMixed) and the bytes.
struct RecordFormat {
  uint32_t rows = 0;
  RecordCodec k_codec = RecordCodec::kAsWritten;
  RecordCodec v_codec = RecordCodec::kAsWritten;
  uint32_t k_planes = 0;
  uint32_t v_planes = 0;
  uint64_t k_bytes = 0;
  uint64_t v_bytes = 0;
};

// Consecutive slots of one block of one layer that is stored as records, see
// LayerView::record_format: K of kv head h at k + h * k_bytes, and so V.
struct RecordView {
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  uint32_t first_slot = 0;
  uint32_t rows = 0;
  // Slot s holds row first_row + s of the stream, which the query of row i sees from
  // LayerView::RecordsFirst(i) on. Without it every query sees all rows.
  bool windowed = false;
  uint64_t first_row = 0;  // windowed: of slot 0
  int64_t query_offset = 0;
  uint64_t query_max = std::numeric_limits<uint64_t>::max();
  const uint32_t* positions = nullptr;  // original position of each row: `rows` entries
  const uint32_t* tokens = nullptr;

  uint64_t QueryPosition(uint64_t row) const {
    return QueryPositionOf(row, query_offset, query_max);
  }
};

// The slots of one recent block of one layer: rows [first_row, first_row + slots_per_block).
// Writable by the engine for rows below the sequence's granted count.
struct RecentBlockView {
  std::byte* k = nullptr;
  std::byte* v = nullptr;
};

// Where an engine adds the attention of a step's queries, for policies that score by it: the
// softmax probability of each visible key, summed over the query heads of its kv head and over the
// step's queries, query t of n weighted by StepView::mass_decay to the power n - 1 - t. Private
// memory of this process, zero at Begin(); Commit() adds it to what the daemon reads. Rows that a
// query does not see get nothing.
struct MassView {
  // Retrieval policies: [query_head] instead of [kv_head], of the recent rows inside the window
  // only; `kept` is null.
  bool by_query_head = false;
  float* kept = nullptr;  // [kv_head][kept_rows], in the order of LayerView::kept; null: not asked
  float* recent = nullptr;  // [kv_head][recent_rows], row recent_base first
  uint64_t kept_rows = 0;
  uint64_t recent_rows = 0;
};

// Where an engine writes queries (rotated like keys of their row, not scaled) that the policy asks
// for: those of rows [first_row, first_row + count), [query_head][k_head_dim] floats each.
struct QueryRowsView {
  float* data = nullptr;  // null: not asked
  uint64_t first_row = 0;
  uint32_t count = 0;
  uint32_t row_floats = 0;

  // Where the query of `row` goes; null where it is not asked for.
  float* Of(uint64_t row) const {
    if (data == nullptr || row < first_row || row >= first_row + count) return nullptr;
    return data + (row - first_row) * row_floats;
  }
};

struct LayerView {
  std::span<const KeptRunView> kept;            // in cache order
  std::span<const RecordView> records;          // attended beside `kept`
  const RecordFormat* record_format = nullptr;  // null: there are no records
  uint64_t records_from = 0;                    // first row that windowed records may show
  std::span<const RecentBlockView> recent;      // contiguous blocks; block 0 starts at recent_base
  uint64_t recent_base = 0;          // first row of recent[0]: a multiple of slots_per_block
  uint64_t recent_first = 0;         // first visible row of recent
  uint64_t window = 0;               // rows, the query's own included; 0: all
  std::span<const uint64_t> sticky;  // ascending rows >= recent_first
  uint32_t slots_per_block = 0;
  uint32_t k_stride = 0;  // bytes between the K rows of neighbouring slots of a recent block
  uint32_t v_stride = 0;
  // positions=unrotated: keys are written and kept without rotation, and the engine rotates each at
  // its row (a kept one at its `positions` entry) where it reads it.
  bool unrotated = false;
  // Retrieval policies (infllm); 0: none. Kept rows, recent rows below the window (from
  // recent_first on) and the blocks that Sequence::Retrieve() returns for this layer and step are
  // attended as well, by every query: their keys not rotated at all, the query rotated at
  // far_position. Rows inside the window as always, keys rotated at their row (`unrotated` is set).
  uint64_t far_position = 0;
  MassView mass;
  QueryRowsView queries;

  // First row that the window shows to the query of `row`, whatever is there.
  uint64_t WindowLow(uint64_t row) const {
    return window == 0 || row + 1 < window ? 0 : row + 1 - window;
  }
  // First row of recent that the query of `row` sees through the window.
  uint64_t WindowFirst(uint64_t row) const { return std::max(WindowLow(row), recent_first); }
  // First row of windowed records that the query of `row` sees.
  uint64_t RecordsFirst(uint64_t row) const { return std::max(WindowLow(row), records_from); }
  // Row `p` of recent; REQUIRES: recent_base <= p < recent_base + recent.size() * slots_per_block.
  std::byte* KeyOf(uint64_t p) const {
    const uint64_t at = p - recent_base;
    return recent[at / slots_per_block].k + (at % slots_per_block) * k_stride;
  }
  std::byte* ValueOf(uint64_t p) const {
    const uint64_t at = p - recent_base;
    return recent[at / slots_per_block].v + (at % slots_per_block) * v_stride;
  }
};

// The rows [row, row + count) that one step computes, in every layer. `layers` has one view a
// layer.
struct StepView {
  uint64_t row = 0;
  uint32_t count = 0;
  std::span<const LayerView> layers;
  double mass_decay = 1.0;  // see MassView
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_VIEW_H_
