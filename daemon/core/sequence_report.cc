// What people ask of a sequence: how much it keeps, and which rows.
#include <algorithm>
#include <set>
#include <vector>

#include "daemon/core/sequence.h"

namespace kvasir::core {

SequenceSummary Sequence::Summary() const {
  SequenceSummary summary;
  summary.rows_seen = rows_;
  summary.compactions = compactions_;
  summary.version = published_version();
  summary.rollback_floor = RollbackFloor();
  std::set<const KeptGroup*> kept;
  const auto add_table = [&kept](const TableVersion& table) {
    for (const LaneTable& lane : table.lanes) {
      for (const KeptRun& run : lane.kept.runs()) kept.insert(run.group.get());
    }
    for (const auto& group : table.filling) kept.insert(group.get());
  };
  add_table(current_);
  if (published_) add_table(*published_);
  if (preparing_) add_table(*preparing_);
  for (const KeptGroup* group : kept) summary.held_bytes += group->geometry().bytes;
  const TableVersion& newest = published_ && published_->from_row <= rows_ ? *published_ : current_;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    summary.held_bytes += lanes_[i].recent.size() * lanes_[i].block.bytes;
    const LaneTable& table = newest.lanes[i];
    // What the query of row `rows_` sees, without its own row, which is not written yet.
    uint64_t low = table.recent_first;
    if (table.window != 0 && rows_ + 1 > table.window)
      low = std::max(low, rows_ + 1 - table.window);
    uint64_t visible = table.kept.rows() + (rows_ > low ? rows_ - low : 0);
    for (const uint64_t row : table.sticky) visible += row < std::min(low, rows_) ? 1 : 0;
    summary.rows_kept = std::max(summary.rows_kept, visible);
  }
  return summary;
}

std::vector<uint32_t> Sequence::LaneOfLayer() const {
  std::vector<uint32_t> lane_of_layer(context_.model->layers());
  for (size_t i = 0; i < lanes_.size(); ++i) {
    for (const uint32_t layer : lanes_[i].layers) lane_of_layer[layer] = static_cast<uint32_t>(i);
  }
  return lane_of_layer;
}

std::vector<RowReport> Sequence::Inspect(uint32_t layer, uint64_t first_row,
                                         uint32_t max_rows) const {
  const LaneTable& table = current_.lanes[LaneOfLayer()[layer]];
  std::vector<RowReport> reports;
  const uint64_t end = std::min(rows_, first_row + max_rows);
  for (uint64_t row = first_row; row < end; ++row) reports.push_back({row, 0, false, false});
  if (reports.empty()) return reports;
  for (RowReport& report : reports) {
    if (report.row < tokens_base_) continue;
    report.token = TokenOf(report.row);
    report.token_known = true;
  }
  const auto mark = [&](uint64_t row) {
    if (row >= first_row && row < end) reports[row - first_row].kept = true;
  };
  for (const KeptRun& run : table.kept.runs()) {
    for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
      const KeptSlot& slot = run.group->slots[s];
      mark(slot.row);
      if (slot.row < first_row || slot.row >= end) continue;
      reports[slot.row - first_row].token = slot.token;
      reports[slot.row - first_row].token_known = true;
    }
  }
  for (const uint64_t row : table.sticky) mark(row);
  uint64_t low = table.recent_first;
  if (table.window != 0 && rows_ + 1 > table.window) low = std::max(low, rows_ + 1 - table.window);
  for (uint64_t row = std::max(low, first_row); row < end; ++row) mark(row);
  return reports;
}

}  // namespace kvasir::core
