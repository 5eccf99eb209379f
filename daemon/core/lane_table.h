// What the queries of one lane see: kept rows, records, recent rows. Shared by the versions of a
// sequence's table and by snapshots.
#ifndef KVASIR_DAEMON_CORE_LANE_TABLE_H_
#define KVASIR_DAEMON_CORE_LANE_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <absl/container/flat_hash_set.h>
#include <absl/status/statusor.h>

#include "daemon/core/kept_list.h"
#include "daemon/core/model.h"
#include "policies/policy_definition.h"
#include "policies/retention_policy.h"
#include "proto/shm/group_geometry.h"

namespace kvasir::core {

// Filled groups that something names, each once.
using GroupSet = absl::flat_hash_set<const KeptGroup*>;

// How kept rows of a lane that are in no records are laid out. Immutable; shared by the lane, by
// snapshots of it and by the lanes opened from those, since groups that they share refer to it.
struct KeptShapes {
  shm::GroupGeometry block;  // whole blocks
  shm::GroupGeometry small;  // and the rest
  // Of rows that nobody has moved yet, where an engine reports nothing beside them.
  shm::GroupGeometry recent;
};

// What lanes of equal layers share in snapshots that are made from what was written down.
struct LaneLayout {
  std::shared_ptr<const KeptShapes> shapes;    // shared with the snapshots
  std::shared_ptr<const LaneRecords> records;  // likewise; null: none is encoded
};
// By layers. Snapshots of one model and retention that share groups have the same ones, since the
// groups refer to them.
using LaneLayouts = std::map<std::vector<uint32_t>, LaneLayout>;

// The layers of each lane, ascending.
std::vector<std::vector<uint32_t>> LayersOfLanes(std::span<const uint32_t> lane_of_layer,
                                                 size_t lanes);

// `layers`: of the lane, ascending. `v_bits`: of an element of V, coded row by row; 0: as written.
// Errors: kInvalidArgument naming the layer for values that have no such code.
absl::StatusOr<KeptShapes> MakeKeptShapes(const Model& model, std::span<const uint32_t> layers,
                                          const shm::TrailerShape& trailer, uint32_t v_bits);

// The same for a lane that `policy` decides about: with a column for each layer or kv head where it
// decides by scores. Errors: those of MakeKeptShapes().
absl::StatusOr<KeptShapes> KeptShapesFor(const Model& model, std::span<const uint32_t> layers,
                                         const RetentionPolicy& policy,
                                         const std::optional<EncodingSpec>& encoding);

// A record of rows of the window: slot s holds row first_row + s.
struct WindowRecord {
  std::shared_ptr<KeptGroup> group;  // shared by the versions that name it
  uint64_t first_row = 0;
};

// The table of one lane in one version.
struct LaneTable {
  KeptList kept;
  std::vector<WindowRecord> records;  // ascending
  uint64_t records_from = 0;          // first row of them that may be visible
  std::vector<KeptSpan> spans;
  uint64_t from_row = 0;
  uint64_t recent_first = 0;
  uint64_t window = 0;
  std::vector<uint64_t> sticky;
  uint64_t until_row = kNoRow;
  uint64_t cut_row = 0;  // rows below need the table before this one; 0: none do
  // kAttentionMass: score of each kept row when the table began, [mass set][kept row]; null: none
  // is kept. Shared by copies of the table and the jobs that read it.
  std::shared_ptr<const std::vector<float>> base;

  // First row that the query of row `row` sees through the window, in records or recent.
  uint64_t WindowFirst(uint64_t row) const;
};

// The tables of all lanes at once.
struct TableVersion {
  uint64_t version = 0;
  uint64_t from_row = 0;
  uint64_t until_row = kNoRow;
  std::vector<LaneTable> lanes;
  // While copies are under way: every group they fill, those of a replaced plan as well.
  std::vector<std::shared_ptr<KeptGroup>> filling;  // shared with the job and the lists
  uint64_t arena_off = 0;
  uint64_t arena_bytes = 0;
};

// Adds every group that the version names or that is being filled for it.
void AddGroups(const TableVersion& version, GroupSet* groups);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_LANE_TABLE_H_
