// The groups of a snapshot, one by one: what is written of it to a tier, or said of it to the
// process that comes next.
#ifndef KVASIR_DAEMON_CORE_SNAPSHOT_GROUPS_H_
#define KVASIR_DAEMON_CORE_SNAPSHOT_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "daemon/core/snapshot.h"

namespace kvasir::core {

struct SnapshotGroup {
  std::shared_ptr<KeptGroup> kept;  // shared with the snapshot's lists; null: a recent block
  Group recent;                     // of the snapshot, which outlives this
  uint32_t lane = 0;
  uint32_t slots = 0;
  uint32_t rows = 0;  // the snapshot's, in its first slots; of a recent block all that fit
  uint64_t plane_bytes = 0;

  const Group& group() const { return kept != nullptr ? kept->group() : recent; }
  // What is worth writing: the trailer follows from the snapshot.
  std::span<std::byte> planes() const { return {group().data(), plane_bytes}; }
};

SnapshotGroup KeptGroupOf(std::shared_ptr<KeptGroup> group, uint32_t lane, uint32_t rows);
// The `index`th of the lane.
SnapshotGroup RecentGroupOf(const Snapshot& snapshot, uint32_t lane, size_t index);

// Each once. For each lane in turn: groups of kept rows and of records, of its table and of the
// next one, in the order in which they are named; then its recent blocks.
std::vector<SnapshotGroup> GroupsOf(const Snapshot& snapshot);

// Those of them that are no recent blocks.
std::vector<SnapshotGroup> KeptGroupsOf(const Snapshot& snapshot);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SNAPSHOT_GROUPS_H_
