#include "client/llama_cpp/daemon_rows.h"

#include <algorithm>
#include <limits>
#include <string>

#include "client/llama_cpp/daemon_model.h"

namespace kvasir::llama_cpp {
namespace {

constexpr size_t kNoCell = std::numeric_limits<size_t>::max();
constexpr uint32_t kRowsAtOnce = 1024;

RowRun RecentRun(const kvasir_layer_view& view, uint64_t row, uint32_t rows, size_t cell) {
  const uint64_t at = row - view.recent_base;
  const kvasir_recent_block& block = view.recent[at / view.slots_per_block];
  const uint64_t slot = at % view.slots_per_block;
  return {static_cast<std::byte*>(block.k) + slot * view.k_stride,
          static_cast<std::byte*>(block.v) + slot * view.v_stride,
          view.k_stride,
          view.v_stride,
          rows,
          cell};
}

// Rows [row, end) that lie in one block.
uint32_t RowsInBlock(const kvasir_layer_view& view, uint64_t row, uint64_t end) {
  const uint64_t left = view.slots_per_block - (row - view.recent_base) % view.slots_per_block;
  return static_cast<uint32_t>(std::min(left, end - row));
}

// One layer's rows in the order of cells; false where llama.cpp cannot have them so.
bool AddLayer(const kvasir_layer_view& view, uint64_t row, std::vector<int32_t>& positions,
              std::vector<RowRun>& runs) {
  if (view.record_count > 0 || view.unrotated != 0 || view.far_position != 0) return false;
  for (size_t i = 0; i < view.kept_count; ++i) {
    const kvasir_kept_run& run = view.kept[i];
    if (run.v_bits != 0 || run.head_stride != 0 || run.query_offset != 0) return false;
    // Kept rows are read only, and nobody writes through what comes of it.
    runs.push_back({static_cast<std::byte*>(const_cast<void*>(run.k)),
                    static_cast<std::byte*>(const_cast<void*>(run.v)), run.k_stride, run.v_stride,
                    run.rows, positions.size()});
    for (uint32_t r = 0; r < run.rows; ++r) {
      positions.push_back(static_cast<int32_t>(run.positions[r]));
    }
  }
  const uint64_t window = view.window == 0 || row + 1 < view.window ? 0 : row + 1 - view.window;
  const uint64_t first = std::max(window, view.recent_first);
  for (size_t i = 0; i < view.sticky_count && view.sticky[i] < first; ++i) {
    runs.push_back(RecentRun(view, view.sticky[i], 1, positions.size()));
    positions.push_back(static_cast<int32_t>(view.sticky[i]));
  }
  for (uint64_t p = first; p < row;) {
    const uint32_t rows = RowsInBlock(view, p, row);
    runs.push_back(RecentRun(view, p, rows, positions.size()));
    for (uint32_t r = 0; r < rows; ++r) positions.push_back(static_cast<int32_t>(p + r));
    p += rows;
  }
  return true;
}

}  // namespace

kvasir_code CopyRowsTo(kvasir_sequence* to, std::span<const uint32_t> tokens,
                       const StateLayout& layout, StateImage& image, kvasir_error* error) {
  std::vector<size_t> cell_of(tokens.size(), kNoCell);
  bool twice = false;
  for (size_t cell = 0; cell < layout.positions.size(); ++cell) {
    const auto position = static_cast<size_t>(static_cast<uint32_t>(layout.positions[cell]));
    if (position >= tokens.size()) continue;
    twice = twice || cell_of[position] != kNoCell;
    cell_of[position] = cell;
  }
  const auto from = static_cast<std::ptrdiff_t>(kvasir_rows(to));
  const auto missing = std::find(cell_of.begin() + from, cell_of.end(), kNoCell);
  if (twice || missing != cell_of.end()) {
    return Fail(
        error, KVASIR_FAILED_PRECONDITION,
        twice ? "the sequence has a position twice"
              : "the sequence has no row at position " + std::to_string(missing - cell_of.begin()));
  }
  for (uint64_t row = kvasir_rows(to); row < tokens.size(); row = kvasir_rows(to)) {
    kvasir_step step{};
    const auto want = static_cast<uint32_t>(std::min<uint64_t>(kRowsAtOnce, tokens.size() - row));
    kvasir_code code = kvasir_begin(to, want, &step, error);
    if (code != KVASIR_OK) return code;
    if (step.layer_count != layout.layers.size()) {
      return Fail(error, KVASIR_FAILED_PRECONDITION, "the sequence's layers have changed");
    }
    const uint64_t end = row + step.count;
    for (size_t l = 0; l < step.layer_count; ++l) {
      const kvasir_layer_view& view = step.layers[l];
      for (uint64_t p = row; p < end;) {
        const uint32_t in_block = RowsInBlock(view, p, end);
        uint32_t rows = 1;
        while (rows < in_block && cell_of[p + rows] == cell_of[p] + rows) ++rows;
        image.ReadRows(layout, layout.layers[l], RecentRun(view, p, rows, cell_of[p]));
        p += rows;
      }
    }
    code = kvasir_commit(to, tokens.data() + row, step.count, error);
    if (code != KVASIR_OK) return code;
  }
  return KVASIR_OK;
}

kvasir_code FindVisibleRows(kvasir_sequence* from, VisibleRows* visible, kvasir_error* error) {
  kvasir_step step{};
  const kvasir_code code = kvasir_begin(from, 1, &step, error);
  if (code != KVASIR_OK) return code;
  visible->runs.resize(step.layer_count);
  for (size_t l = 0; l < step.layer_count; ++l) {
    std::vector<int32_t> positions;
    if (!AddLayer(step.layers[l], step.row, positions, visible->runs[l])) {
      return Fail(error, KVASIR_UNIMPLEMENTED,
                  std::string("llama.cpp cannot have rows as this retention leaves them: ") +
                      kvasir_retention(from));
    }
    if (l > 0 && positions != visible->positions) {
      return Fail(error, KVASIR_UNIMPLEMENTED,
                  std::string("llama.cpp keeps the same tokens in all layers: retention=") +
                      kvasir_retention(from));
    }
    visible->positions = std::move(positions);
  }
  return KVASIR_OK;
}

void WriteRows(const VisibleRows& visible, const StateLayout& layout, StateImage& image) {
  for (size_t l = 0; l < layout.layers.size(); ++l) {
    for (const RowRun& run : visible.runs[l]) image.WriteRows(layout, layout.layers[l], run);
  }
}

}  // namespace kvasir::llama_cpp
