#include "daemon/core/snapshot_state.h"

#include <algorithm>
#include <bit>

#include <absl/container/flat_hash_map.h>

#include "base/error.h"
#include "base/state_codec.h"
#include "base/status_macros.h"
#include "daemon/core/snapshot_groups.h"
#include "daemon/core/snapshot_state_format.h"
#include "daemon/core/whole_snapshot.h"
#include "policies/plan_state.h"

namespace kvasir::core {
namespace {

using GroupIndex = absl::flat_hash_map<const KeptGroup*, uint32_t>;  // in its lane

void WriteIds(const auto& ids, StateWriter& writer) {
  writer.Number(ids.size());
  for (const uint32_t id : ids) writer.Id(id);
}

GroupRole RoleOf(const KeptGroup& group, const Snapshot::Lane& lane) {
  if (group.records() != nullptr) return GroupRole::kRecord;
  return &group.geometry() == &lane.kept_shapes->block ? GroupRole::kBlock : GroupRole::kSmall;
}

void WriteGroup(const KeptGroup& group, const Snapshot::Lane& lane, StateWriter& writer) {
  writer.Id(static_cast<uint32_t>(RoleOf(group, lane)));
  writer.Id(group.rows());
  for (const KeptSlot& slot : group.slots) {
    writer.Id(static_cast<uint32_t>(slot.row));
    writer.Id(static_cast<uint32_t>(slot.rotated_at));
    writer.Id(slot.token);
  }
}

void WriteTable(const LaneTable& table, const GroupIndex& index, StateWriter& writer) {
  writer.Number(table.kept.runs().size());
  for (const KeptRun& run : table.kept.runs()) {
    writer.Id(index.at(run.group.get()));
    writer.Id(run.first_slot);
    writer.Id(run.rows);
  }
  writer.Number(table.records.size());
  for (const WindowRecord& record : table.records) {
    writer.Id(index.at(record.group.get()));
    writer.Number(record.first_row);
  }
  writer.Number(table.records_from);
  writer.Number(table.spans.size());
  for (const KeptSpan& span : table.spans) {
    writer.Number(span.count);
    writer.Number(std::bit_cast<uint64_t>(span.query_offset));
    writer.Number(span.query_max);
  }
  for (const uint64_t number :
       {table.from_row, table.recent_first, table.window, table.until_row, table.cut_row}) {
    writer.Number(number);
  }
  writer.Number(table.sticky.size());
  for (const uint64_t row : table.sticky) writer.Number(row);
}

absl::Status WriteLane(const Snapshot& snapshot, uint32_t number,
                       std::span<const SnapshotGroup> groups, StateWriter& writer) {
  const Snapshot::Lane& lane = snapshot.lanes[number];
  GroupIndex index;
  for (const SnapshotGroup& group : groups) {
    index.emplace(group.kept.get(), static_cast<uint32_t>(index.size()));
  }
  writer.Number(groups.size());
  for (const SnapshotGroup& group : groups) WriteGroup(*group.kept, lane, writer);
  WriteTable(snapshot.table.lanes[number], index, writer);
  if (snapshot.next) WriteTable(snapshot.next->lanes[number], index, writer);
  KVASIR_ASSIGN_OR_RETURN(const std::string policy, lane.policy->SaveState());
  writer.Text(policy);
  writer.Number(lane.pending.size());
  for (const RetentionPlan& plan : lane.pending) writer.Text(SavePlan(plan));
  return absl::OkStatus();
}

}  // namespace

bool HasState(const Snapshot& snapshot) {
  if (snapshot.device != nullptr) return false;
  return std::all_of(snapshot.lanes.begin(), snapshot.lanes.end(), [](const Snapshot::Lane& lane) {
    const ScoreSource source = lane.policy->Needs().source;
    return source != ScoreSource::kAttentionMass && source != ScoreSource::kWindowQueries &&
           source != ScoreSource::kLocalMass;
  });
}

bool CanBeStored(const Snapshot& snapshot) {
  if (snapshot.device != nullptr) return false;
  return IsWhole(snapshot) || (snapshot.chain && snapshot.rows >= kChunkTokens &&
                               !snapshot.lanes.empty() && HasState(snapshot));
}

absl::StatusOr<std::string> SaveSnapshot(const Snapshot& snapshot) {
  if (snapshot.rows > kSnapshotRowsMax) {
    return FailedPrecondition("a snapshot of so many rows is not written down: rows={} max={}",
                              snapshot.rows, kSnapshotRowsMax);
  }
  StateWriter writer;
  writer.Number(snapshot.rows);
  writer.Number(snapshot.tokens_base);
  WriteIds(snapshot.tokens, writer);
  WriteIds(snapshot.prompt, writer);
  WriteIds(snapshot.chosen, writer);
  writer.Number(snapshot.table.from_row);
  writer.Number(snapshot.table.until_row);
  writer.Flag(snapshot.next.has_value());
  if (snapshot.next) {
    writer.Number(snapshot.next->from_row);
    writer.Number(snapshot.next->until_row);
  }
  std::vector<std::vector<SnapshotGroup>> groups(snapshot.lanes.size());
  for (SnapshotGroup& group : KeptGroupsOf(snapshot)) {
    groups[group.lane].push_back(std::move(group));
  }
  writer.Number(snapshot.lanes.size());
  for (uint32_t lane = 0; lane < snapshot.lanes.size(); ++lane) {
    KVASIR_RETURN_IF_ERROR(WriteLane(snapshot, lane, groups[lane], writer));
  }
  std::string state = SealState(kSnapshotState, snapshot.retention, writer.bytes());
  if (state.size() > kSnapshotState.bytes_max) {
    return FailedPrecondition(
        "the state of a snapshot is too large to be written down: bytes={} max={}", state.size(),
        kSnapshotState.bytes_max);
  }
  return state;
}

}  // namespace kvasir::core
