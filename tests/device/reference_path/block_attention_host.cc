#include <algorithm>
#include <vector>

#include "kernels/attention.h"
#include "tests/device/reference_path/block_attention.h"

namespace kvasir::device::testing {

namespace {

// `runs_of(offset of the kv head in a row)`: the rows that its query heads see.
template <typename Attention, typename RunsOf>
absl::Status AttendEach(const Attention& attention, const RunsOf& runs_of) {
  const kernels::AttentionShape shape = {.type = kernels::RowType::kF16,
                                         .heads = attention.heads,
                                         .k_dim = attention.dim,
                                         .v_dim = attention.dim,
                                         .scale = attention.scale};
  for (uint32_t kv_head = 0; kv_head < attention.kv_heads; ++kv_head) {
    const std::vector<kernels::AttentionRun> runs = runs_of(uint64_t{kv_head} * attention.dim * 2);
    const uint64_t first = uint64_t{kv_head} * attention.heads * attention.dim;
    kernels::AttentionState state;
    state.Reset(attention.heads, attention.dim);
    kernels::AttendRuns(shape, attention.q + first, runs, state);
    kernels::FinishState(state, attention.dim, attention.out + first);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Attend(const BlockAttention& attention) {
  const uint32_t half = attention.kv_heads * attention.dim * 2;  // bytes of a row's keys
  return AttendEach(attention, [&](uint64_t head_off) {
    std::vector<kernels::AttentionRun> runs;
    for (uint32_t row = 0; row < attention.rows; row += attention.block_rows) {
      const uint64_t block = attention.table[row / attention.block_rows];
      const std::byte* k = attention.pool + block * attention.block_rows * 2 * half + head_off;
      runs.push_back({.k = k,
                      .v = k + half,
                      .k_stride = 2 * half,
                      .v_stride = 2 * half,
                      .rows = std::min(attention.block_rows, attention.rows - row),
                      .query_set = 0});
    }
    return runs;
  });
}

absl::Status Attend(const RowAttention& attention) {
  const uint32_t row_bytes = attention.kv_heads * attention.dim * 2;
  return AttendEach(attention, [&](uint64_t head_off) {
    std::vector<kernels::AttentionRun> runs;
    for (uint32_t row = 0; row < attention.rows; ++row) {
      runs.push_back({.k = attention.keys[row] + head_off,
                      .v = attention.values[row] + head_off,
                      .k_stride = row_bytes,
                      .v_stride = row_bytes,
                      .rows = 1,
                      .query_set = 0});
    }
    return runs;
  });
}

}  // namespace kvasir::device::testing
