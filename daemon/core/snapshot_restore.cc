// The reader of snapshot_state.h.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/state_codec.h"
#include "base/status_macros.h"
#include "daemon/core/snapshot_lane_state.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/snapshot_state_format.h"
#include "policies/policy_state.h"

namespace kvasir::core {
namespace {

template <typename List>
void ReadIds(const char* field, uint64_t count_max, uint32_t id_max, StateReader& reader,
             List& out) {
  const uint64_t count = reader.Count(field, 4, count_max);
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    out.push_back(reader.Id(field));
    if (out.back() > id_max) {
      reader.Fail(DataLoss("snapshot is out of bounds: {}={} max={}", field, out.back(), id_max));
    }
  }
}

class Restorer {
 public:
  Restorer(const Model& model, const SnapshotFacts& facts, PolicyLanes lanes,
           const std::shared_ptr<const ModelProfile>& profile, LaneLayouts* layouts,
           const GroupSupply& supply)
      : model_(model),
        lanes_(std::move(lanes)),
        profile_(profile),
        layouts_(layouts),
        supply_(supply),
        snapshot_(std::make_shared<Snapshot>()) {
    static_cast<SnapshotFacts&>(*snapshot_) = facts;
  }

  absl::StatusOr<std::shared_ptr<const Snapshot>> Restore(std::string_view state) {
    if (lanes_.spec != snapshot_->retention || lanes_.lane_of_layer != snapshot_->lane_of_layer) {
      return FailedPrecondition("the retention makes other lanes now: retention={}",
                                snapshot_->retention);
    }
    KVASIR_ASSIGN_OR_RETURN(const std::string_view body,
                            OpenState(kSnapshotState, snapshot_->retention, state));
    StateReader reader(kSnapshotState, body);
    ReadRows(reader);
    KVASIR_RETURN_IF_ERROR(MakeLayouts());
    std::vector<LaneState> states(lanes_.lanes.size());
    reader.Expect("lanes", lanes_.lanes.size());
    for (size_t i = 0; i < states.size() && reader.ok(); ++i) {
      ReadLaneState(
          {rows(), snapshot_->next.has_value(), model_.description().vocabulary_size, &layout_[i]},
          reader, states[i]);
    }
    KVASIR_RETURN_IF_ERROR(reader.Finish());
    for (uint32_t i = 0; i < states.size(); ++i) {
      KVASIR_RETURN_IF_ERROR(CheckRows(i, states[i]));
      KVASIR_RETURN_IF_ERROR(RestorePolicy(i, states[i]));
    }
    // Memory is taken for what has passed every check.
    for (uint32_t i = 0; i < states.size(); ++i) KVASIR_RETURN_IF_ERROR(MakeLane(i, states[i]));
    // What was dropped is not there for an earlier row.
    if (!AllRowsStay()) snapshot_->first_rows = rows();
    return std::move(snapshot_);
  }

 private:
  uint64_t rows() const { return snapshot_->rows; }

  bool AllRowsStay() const {
    return std::all_of(snapshot_->lanes.begin(), snapshot_->lanes.end(), [](const auto& lane) {
      return lane.records == nullptr && lane.recent == nullptr && lane.policy->KeepsAll();
    });
  }

  void ReadRows(StateReader& reader) {
    Snapshot& snapshot = *snapshot_;
    const uint32_t last_token = model_.description().vocabulary_size - 1;
    snapshot.positions = lanes_.positions;
    reader.Expect("rows", snapshot.rows);
    snapshot.tokens_base = reader.Number("tokens_base", 0, snapshot.rows);
    snapshot.tokens.clear();
    ReadIds("tokens", snapshot.rows - snapshot.tokens_base, last_token, reader, snapshot.tokens);
    if (reader.ok() && snapshot.tokens.size() != snapshot.rows - snapshot.tokens_base) {
      reader.Fail(DataLoss("snapshot has too few tokens: tokens={} expected={}",
                           snapshot.tokens.size(), snapshot.rows - snapshot.tokens_base));
    }
    snapshot.prompt.clear();
    snapshot.chosen.clear();
    ReadIds("prompt", kSnapshotRowsMax, last_token, reader, snapshot.prompt);
    ReadIds("chosen", snapshot.prompt.size(), static_cast<uint32_t>(kSnapshotRowsMax), reader,
            snapshot.chosen);
    snapshot.table = {};
    snapshot.table.from_row = reader.Number("from_row", 0, snapshot.rows);
    snapshot.table.until_row = reader.Number("until_row", snapshot.table.from_row, kNoRow);
    snapshot.next.reset();
    if (!reader.Flag("next")) return;
    snapshot.next.emplace();
    snapshot.next->from_row = reader.Number("next_from_row", snapshot.rows, kStateRowsMax);
    snapshot.next->until_row = reader.Number("next_until_row", snapshot.next->from_row, kNoRow);
  }

  absl::Status MakeLayouts() {
    for (const std::vector<uint32_t>& layers :
         LayersOfLanes(lanes_.lane_of_layer, lanes_.lanes.size())) {
      if (layouts_ != nullptr) {
        if (const auto known = layouts_->find(layers); known != layouts_->end()) {
          layout_.push_back(known->second);
          continue;
        }
      }
      const RetentionPolicy& policy = *lanes_.lanes[layout_.size()];
      KVASIR_ASSIGN_OR_RETURN(KeptShapes shapes,
                              KeptShapesFor(model_, layers, policy, lanes_.encoding));
      LaneLayout layout;
      layout.shapes = std::make_shared<const KeptShapes>(std::move(shapes));
      KVASIR_ASSIGN_OR_RETURN(layout.records,
                              LaneRecordsFor(lanes_.encoding, model_, layers, policy, profile_));
      if (layouts_ != nullptr) layouts_->emplace(layers, layout);
      layout_.push_back(std::move(layout));
    }
    return absl::OkStatus();
  }

  // Recent rows have tokens, and where all rows stay as written they lie in their order.
  absl::Status CheckRows(size_t index, const LaneState& lane) const {
    const uint64_t first = lane.table.facts.recent_first;
    if (first < snapshot_->tokens_base) {
      return DataLoss("snapshot has no tokens of recent rows: recent_first={} tokens_base={}",
                      first, snapshot_->tokens_base);
    }
    if (!lanes_.lanes[index]->KeepsAll() || layout_[index].records != nullptr) {
      return absl::OkStatus();
    }
    uint64_t next = 0;
    for (const LaneState::Run& run : lane.table.runs) {
      const std::vector<KeptSlot>& slots = lane.groups[run.group].slots;
      for (uint32_t i = 0; i < run.rows; ++i) {
        if (slots[run.first_slot + i].row != next++) {
          return DataLoss("snapshot keeps all rows, and not in their order: row={} expected={}",
                          slots[run.first_slot + i].row, next - 1);
        }
      }
    }
    if (next == first) return absl::OkStatus();
    return DataLoss("snapshot keeps all rows, and has others: rows={} recent_first={}", next,
                    first);
  }

  absl::Status RestorePolicy(size_t index, const LaneState& lane) {
    RetentionPolicy& policy = *lanes_.lanes[index];
    KVASIR_RETURN_IF_ERROR(policy.RestoreState(lane.policy, rows()));
    // A lane that keeps every row as written is sealed without its policy.
    if (policy.KeepsAll() && layout_[index].records == nullptr) return absl::OkStatus();
    const std::optional<RetentionPlan> last = policy.LastTable();
    const LaneTable& table = snapshot_->next ? lane.next.facts : lane.table.facts;
    const bool same =
        last && (lane.pending.empty() ? IsSame(*last, table) : IsSame(*last, lane.pending.back()));
    if (same) return absl::OkStatus();
    return DataLoss("snapshot has another table than its policy says: lane={} retention={}", index,
                    snapshot_->retention);
  }

  static bool IsSame(const RetentionPlan& last, const auto& table) {
    return last.from_row == table.from_row && last.until_row == table.until_row &&
           last.recent_first == table.recent_first && last.window == table.window &&
           last.records_from == table.records_from && last.spans == table.spans;
  }

  LaneTable TableOf(const LaneState::Table& table,
                    std::span<const std::shared_ptr<KeptGroup>> groups) const {
    LaneTable out = table.facts;
    std::vector<KeptRun> kept;
    for (const LaneState::Run& run : table.runs) {
      kept.push_back({groups[run.group], run.first_slot, run.rows});
    }
    out.kept = KeptList::Of(std::move(kept));
    for (const LaneState::Record& record : table.records) {
      out.records.push_back({groups[record.group], record.first_row});
    }
    return out;
  }

  absl::Status MakeLane(uint32_t index, LaneState& lane) {
    const LaneLayout& layout = layout_[index];
    std::vector<std::shared_ptr<KeptGroup>> groups;
    for (LaneState::Group& group : lane.groups) {
      WantedGroup wanted;
      wanted.lane = index;
      wanted.index = groups.size();
      wanted.geometry = GeometryOf(layout, group.role);
      wanted.records = group.role == GroupRole::kRecord ? layout.records.get() : nullptr;
      wanted.slots = std::move(group.slots);
      KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<KeptGroup> made, supply_.kept(std::move(wanted)));
      groups.push_back(std::move(made));
    }
    const shm::GroupGeometry& recent = layout.shapes->recent;
    const auto [first, last] =
        RecentBlocks(lane.table.facts.recent_first, rows(), model_.slots_per_block());
    std::shared_ptr<BlockList> blocks;
    if (first < last) blocks = std::make_shared<BlockList>(supply_.recent_allocator(recent.bytes));
    std::vector<GroupDigest> promised;
    for (uint64_t i = 0; i < last - first; ++i) {
      KVASIR_ASSIGN_OR_RETURN(
          const std::optional<GroupDigest> digest,
          supply_.recent(index, groups.size() + i, PlaneBytes(recent), blocks.get()));
      if (digest) promised.push_back(*digest);
    }
    snapshot_->table.lanes.push_back(TableOf(lane.table, groups));
    if (snapshot_->next) snapshot_->next->lanes.push_back(TableOf(lane.next, groups));
    snapshot_->lanes.push_back({layout.shapes, layout.records, std::move(lanes_.lanes[index]),
                                std::move(lane.pending), first, std::move(blocks),
                                std::move(promised)});
    return absl::OkStatus();
  }

  const Model& model_;
  PolicyLanes lanes_;
  const std::shared_ptr<const ModelProfile>& profile_;
  LaneLayouts* const layouts_;
  const GroupSupply& supply_;
  std::vector<LaneLayout> layout_;  // by lane
  std::shared_ptr<Snapshot> snapshot_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Snapshot>> RestoreSnapshot(
    const Model& model, const SnapshotFacts& facts, PolicyLanes lanes,
    const std::shared_ptr<const ModelProfile>& profile, std::string_view state,
    LaneLayouts* layouts, const GroupSupply& supply) {
  return Restorer(model, facts, std::move(lanes), profile, layouts, supply).Restore(state);
}

}  // namespace kvasir::core
