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
  GroupSet groups;
  std::set<const Snapshot*> snapshots;  // of people's bytes they are none until they are handed out
  AddHoldings(&groups, &snapshots);
  if (retrieval_ != nullptr) summary.unseen_bytes = retrieval_->held_bytes();
  summary.held_bytes = own_bytes();
  for (const KeptGroup* group : groups) summary.held_bytes += group->geometry().bytes;
  const TableVersion& newest = published_ && published_->from_row <= rows_ ? *published_ : current_;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const LaneTable& table = newest.lanes[i];
    // What the query of row `rows_` sees, without its own row, which is not written yet.
    const uint64_t low = retrieval_ == nullptr ? table.WindowFirst(rows_) : table.recent_first;
    uint64_t visible = table.kept.rows() + (rows_ > low ? rows_ - low : 0);
    for (const uint64_t row : table.sticky) visible += row < std::min(low, rows_) ? 1 : 0;
    summary.rows_kept = std::max(summary.rows_kept, visible);
  }
  return summary;
}

void Sequence::AddHoldings(GroupSet* groups, std::set<const Snapshot*>* snapshots) const {
  AddGroups(current_, groups);
  if (published_) AddGroups(*published_, groups);
  if (preparing_) AddGroups(*preparing_, groups);
  if (saved_ != nullptr) snapshots->insert(saved_.get());
  if (resumed_from_ != nullptr) snapshots->insert(resumed_from_.get());
}

uint64_t Sequence::own_bytes() const {
  // Blocks being sealed are in preparing_->filling and not in retrieval_ yet.
  uint64_t bytes = retrieval_ == nullptr ? 0 : retrieval_->held_bytes();
  for (const Lane& lane : lanes_) {
    bytes += lane.recent.size() * lane.recent_block.bytes + lane.report_geometry.bytes;
  }
  return bytes;
}

uint64_t Sequence::own_host_bytes() const {
  if (context_.device == nullptr) return own_bytes();
  uint64_t bytes = 0;
  for (const Lane& lane : lanes_) bytes += lane.report_geometry.bytes;
  return bytes;
}

uint64_t Sequence::own_device_bytes() const {
  if (context_.device == nullptr) return 0;
  uint64_t bytes = 0;
  for (const Lane& lane : lanes_) bytes += lane.recent.size() * PlaneBytes(lane.recent_block);
  return bytes;
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
  const uint32_t lane_index = LaneOfLayer()[layer];
  const Lane& lane = lanes_[lane_index];
  const LaneTable& table = current_.lanes[lane_index];
  const auto in_lane = static_cast<size_t>(
      std::find(lane.layers.begin(), lane.layers.end(), layer) - lane.layers.begin());
  const uint32_t heads = lane.heads[in_lane].kv_heads;
  std::vector<RowReport> reports;
  const uint64_t end = std::min(rows_, first_row + max_rows);
  for (uint64_t row = first_row; row < end; ++row) reports.push_back({row, 0, false, 0});
  if (reports.empty()) return reports;
  for (RowReport& report : reports) {
    if (report.row < tokens_base_) continue;
    report.token = TokenOf(report.row);
    report.token_known = true;
  }
  const auto mark = [&](uint64_t row, uint32_t by_heads) {
    if (row < first_row || row >= end) return;
    // A block may be found before the engine is seen to have left the table that still has its
    // rows.
    uint32_t& kept = reports[row - first_row].kept_heads;
    kept = std::min(heads, kept + by_heads);
  };
  const auto mark_slot = [&](const KeptSlot& slot, uint32_t by_heads) {
    mark(slot.row, by_heads);
    if (slot.row < first_row || slot.row >= end) return;
    reports[slot.row - first_row].token = slot.token;
    reports[slot.row - first_row].token_known = true;
  };
  // The columns of this layer.
  uint32_t first_column = 0, columns = 1;
  if (lane.rope.heads_keep_own) {
    for (size_t i = 0; i < in_lane; ++i) first_column += lane.heads[i].kv_heads;
    columns = heads;
  } else if (lane.kept_shapes->block.trailer.position_sets > 1) {
    first_column = static_cast<uint32_t>(in_lane);
  }
  for (const KeptRun& run : table.kept.runs()) {
    for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
      for (uint32_t c = 0; c < columns; ++c) {
        mark_slot(run.group->Slot(first_column + c, s), heads / columns);
      }
    }
  }
  const uint64_t low = table.WindowFirst(rows_);
  for (const WindowRecord& record : table.records) {  // their ids, where they are forgotten
    for (const KeptSlot& slot : record.group->slots) mark_slot(slot, 0);
  }
  for (const uint64_t row : table.sticky) {
    if (row < low) mark(row, heads);
  }
  if (retrieval_ !=
      nullptr) {  // the remainder is in view, and so are the blocks of the last lookup
    for (uint64_t row = table.recent_first; row < low; ++row) mark(row, heads);
    for (const uint32_t block : retrieval_->last(layer)) {
      for (const KeptSlot& slot : retrieval_->block(block).slots) mark_slot(slot, heads);
    }
  }
  for (uint64_t row = std::max(low, first_row); row < end; ++row) mark(row, heads);
  return reports;
}

}  // namespace kvasir::core
