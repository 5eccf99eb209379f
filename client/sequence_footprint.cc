// What a sequence holds: groups that its tables name, each once, and rows that its next query sees.
#include <algorithm>
#include <set>
#include <utility>

#include "base/status_macros.h"
#include "client/sequence_state.h"

namespace kvasir {

absl::StatusOr<Sequence::Footprint> SequenceState::MeasureFootprint() {
  if (closed_) return FailedPrecondition("the sequence is closed: id={}", id_);
  KVASIR_RETURN_IF_ERROR(AwaitStream());
  ForbidAtOnce();
  if (Refresh()) {
    KVASIR_RETURN_IF_ERROR(LoadTable());
    granted_ = 0;
  }
  WriteDesk();
  KVASIR_RETURN_IF_ERROR(Sync(0, rows_));
  if (Refresh()) KVASIR_RETURN_IF_ERROR(LoadTable());
  WriteDesk();
  KVASIR_RETURN_IF_ERROR(Sync(0, std::nullopt));  // the daemon frees what this side has left
  KVASIR_RETURN_IF_ERROR(ExtendRecent());
  MakeLayerViews();
  Sequence::Footprint footprint;
  footprint.version = table_.version;
  footprint.held_bytes = unseen_bytes_;
  for (const LaneViews& lane : lanes_) {
    std::set<std::pair<const std::byte*, uint64_t>>
        groups;  // the address of the positions is one's name
    for (const std::byte* base : lane.trailers) groups.emplace(base, lane.recent_block.bytes);
    footprint.held_bytes += lane.report_geometry.bytes;
    for (const shm::VersionDesc& desc : board_.v) {
      if (desc.version == 0 || desc.version < table_.version) continue;
      const auto* spans = session_->InD<shm::LaneSpan>(desc.lanes_off, lanes_.size());
      if (spans == nullptr) return DataLoss("block table is malformed: version={}", desc.version);
      const shm::LaneSpan span = spans[&lane - lanes_.data()];
      const auto* runs = session_->InD<shm::RunEntry>(span.runs_off, span.runs);
      if (runs == nullptr) return DataLoss("block table is malformed: version={}", desc.version);
      for (uint32_t r = 0; r < span.runs; ++r) {
        const shm::RunEntry run = runs[r];
        KVASIR_ASSIGN_OR_RETURN(const shm::GroupGeometry* const geometry, GeometryOf(lane, run));
        KVASIR_ASSIGN_OR_RETURN(
            const GroupPlace place,
            session_->extents->GroupAt(run.extent, run.generation, run.group_off, *geometry,
                                       session_->DeadlineFromNow()));
        groups.emplace(place.trailer, geometry->bytes);
      }
    }
    for (const auto& [base, bytes] : groups) footprint.held_bytes += bytes;
    const LayerView& view = layers_[lane.layers.front()];
    uint64_t low = retrieves() ? view.recent_first : view.WindowFirst(rows_);
    if (!view.records.empty() && view.records.front().windowed) {
      low = std::max(view.RecordsFirst(rows_), view.records.front().first_row);
    }
    uint64_t visible = lane.kept_rows + (rows_ > low ? rows_ - low : 0);
    for (const uint64_t row : lane.sticky) visible += row < std::min(low, rows_) ? 1 : 0;
    footprint.kept_rows = std::max(footprint.kept_rows, visible);
  }
  return footprint;
}

}  // namespace kvasir
