#include "daemon/core/whole_snapshot.h"

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::core {
namespace {

absl::StatusOr<std::shared_ptr<const KeptShapes>> ShapesOf(const Model& model,
                                                           std::vector<uint32_t> layers,
                                                           LaneLayouts* known) {
  if (known != nullptr) {
    if (const auto found = known->find(layers); found != known->end()) return found->second.shapes;
  }
  KVASIR_ASSIGN_OR_RETURN(KeptShapes made, MakeKeptShapes(model, layers, {}, 0));
  auto shapes = std::make_shared<const KeptShapes>(std::move(made));
  if (known != nullptr) known->emplace(std::move(layers), LaneLayout{shapes, nullptr});
  return shapes;
}

// Brings a new policy to where it has kept every row.
absl::Status KeepAll(RetentionPolicy& policy, std::span<const TokenId> tokens, uint32_t slots) {
  const PlanHorizon horizon{slots, uint64_t{2} * slots};
  (void)policy.NextPlan(horizon);  // the table of row 0
  policy.Append(tokens);
  if (policy.NextPlan(horizon) || !policy.encodable().KeepsAll()) {
    return FailedPrecondition("the retention does not keep every row");
  }
  return absl::OkStatus();
}

}  // namespace

bool IsWhole(const Snapshot& snapshot) {
  if (!snapshot.chain || snapshot.first_rows > 0 || snapshot.rows < kChunkTokens) return false;
  for (size_t i = 0; i < snapshot.lanes.size(); ++i) {
    if (!snapshot.lanes[i].recent_groups().empty()) return false;
    for (const KeptRun& run : snapshot.table.lanes[i].kept.runs()) {
      if (run.first_slot != 0 || run.group->records() != nullptr || run.group->columns() != 1) {
        return false;
      }
    }
  }
  return !snapshot.lanes.empty();
}

std::shared_ptr<const Snapshot> WrittenOf(const std::shared_ptr<const Snapshot>& snapshot) {
  const uint64_t rows = RoundDown(snapshot->rows, kChunkTokens);
  return rows == snapshot->rows || !IsWhole(*snapshot) ? snapshot : snapshot->Cut(rows);
}

std::vector<TokenId> TokensOf(const Snapshot& snapshot) {
  std::vector<TokenId> tokens;
  for (const KeptRun& run : snapshot.table.lanes[0].kept.runs()) {
    for (uint32_t slot = 0; slot < run.rows; ++slot) {
      tokens.push_back(run.group->slots[slot].token);
    }
  }
  return tokens;
}

std::vector<KeptSlot> WholeSlots(uint64_t row, std::span<const TokenId> tokens) {
  std::vector<KeptSlot> slots;
  slots.reserve(tokens.size());
  for (const TokenId token : tokens) {
    slots.push_back({row, row, token});
    ++row;
  }
  return slots;
}

absl::StatusOr<std::shared_ptr<const Snapshot>> MakeWhole(
    const Model& model, const SnapshotFacts& facts, PolicyLanes lanes,
    std::span<const TokenId> tokens, const std::vector<std::vector<WholeRun>>& runs,
    LaneLayouts* layouts,
    const std::function<absl::StatusOr<std::shared_ptr<KeptGroup>>(
        size_t lane, size_t run, uint64_t row, const shm::GroupGeometry& geometry)>& group_of) {
  if (lanes.spec != facts.retention || lanes.lane_of_layer != facts.lane_of_layer ||
      lanes.lanes.size() != runs.size()) {
    return FailedPrecondition("the retention makes other lanes now: retention={}", facts.retention);
  }
  auto snapshot = std::make_shared<Snapshot>();
  static_cast<SnapshotFacts&>(*snapshot) = facts;
  snapshot->positions = lanes.positions;
  snapshot->first_rows = 0;
  snapshot->tokens.clear();  // the kept groups have them
  snapshot->tokens_base = facts.rows;
  snapshot->next.reset();
  snapshot->table = {};
  snapshot->table.from_row = facts.rows;
  const uint32_t slots = model.slots_per_block();
  const std::vector<std::vector<uint32_t>> layers_of =
      LayersOfLanes(lanes.lane_of_layer, lanes.lanes.size());
  for (uint32_t i = 0; i < lanes.lanes.size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<const KeptShapes> shapes,
                            ShapesOf(model, layers_of[i], layouts));
    std::vector<KeptRun> kept;
    uint64_t row = 0;
    for (size_t index = 0; index < runs[i].size(); ++index) {
      const WholeRun& run = runs[i][index];
      const shm::GroupGeometry* const geometry =
          run.group_slots == shapes->block.slots   ? &shapes->block
          : run.group_slots == shapes->small.slots ? &shapes->small
                                                   : nullptr;
      if (geometry == nullptr || run.rows == 0 || run.rows > run.group_slots ||
          run.plane_bytes != PlaneBytes(*geometry) || row + run.rows > tokens.size()) {
        return DataLoss("a stored group has another shape: lane={} row={}", i, row);
      }
      KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<KeptGroup> group, group_of(i, index, row, *geometry));
      kept.push_back({std::move(group), 0, run.rows});
      row += run.rows;
    }
    if (row != facts.rows || row != tokens.size()) {
      return DataLoss("a stored prefix has other rows than it says: rows={} stored={}", row,
                      facts.rows);
    }
    KVASIR_RETURN_IF_ERROR(KeepAll(*lanes.lanes[i], tokens, slots));
    LaneTable table;
    table.kept = KeptList::Of(std::move(kept));
    table.spans = {{facts.rows, 0, kNoRow}};
    table.from_row = table.recent_first = facts.rows;
    snapshot->table.lanes.push_back(std::move(table));
    snapshot->lanes.push_back(
        {shapes, nullptr, std::move(lanes.lanes[i]), {}, facts.rows / slots, nullptr, {}});
  }
  return snapshot;
}

}  // namespace kvasir::core
