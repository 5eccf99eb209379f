#include "engine/held_bytes.h"

#include <algorithm>

namespace kvasir::engine {
namespace {

uint64_t RecentRows(const LayerView& view, uint64_t row) {
  uint64_t rows = 0;
  const uint64_t low = view.WindowFirst(row);
  for (const uint64_t sticky : view.sticky) rows += sticky < low ? 1 : 0;
  if (view.far_position != 0) return rows + row + 1 - view.recent_first;
  return rows + row + 1 - std::min(low, row + 1);
}

uint64_t RowsInRecords(const LayerView& view, uint64_t row) {
  uint64_t rows = 0;
  for (const RecordView& record : view.records) {
    uint64_t first = record.first_slot;
    const uint64_t last = uint64_t{record.first_slot} + record.rows;
    const uint64_t low = view.RecordsFirst(row);
    if (record.windowed && low > record.first_row) first = std::max(first, low - record.first_row);
    rows += last - std::min(first, last);
  }
  return rows;
}

}  // namespace

uint64_t VisibleRows(const LayerView& view, uint64_t row) {
  uint64_t kept = 0;
  for (const KeptRunView& run : view.kept) kept += run.rows;
  return kept + RecentRows(view, row) + RowsInRecords(view, row);
}

double VisibleBytes(const StepView& step, uint32_t kv_heads, uint64_t row) {
  double bytes = 0;
  for (const LayerView& view : step.layers) {
    bytes += static_cast<double>(RecentRows(view, row)) * (view.k_stride + view.v_stride);
    for (const KeptRunView& run : view.kept) {
      bytes += static_cast<double>(run.rows) * (run.k_stride + run.v_stride);
    }
    if (view.records.empty()) continue;
    const RecordFormat& format = *view.record_format;
    bytes += static_cast<double>(RowsInRecords(view, row) * kv_heads) *
             static_cast<double>(format.k_bytes + format.v_bytes) / format.rows;
  }
  return bytes;
}

}  // namespace kvasir::engine
