// A snapshot as bytes: what there is to it beside the facts that a manifest names and the bytes of
// its groups. With it every retention that can be saved outlives the process, in a tier or in
// memory. Snapshots of which every row stays as written do not need it (whole_snapshot.h).
//
// Bytes: 12 for each slot of a kept group, 4 for each token not yet moved, and the policies'
// states.
#ifndef KVASIR_DAEMON_CORE_SNAPSHOT_STATE_H_
#define KVASIR_DAEMON_CORE_SNAPSHOT_STATE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "daemon/core/snapshot.h"

namespace kvasir::core {

// Its rows lie in host memory, and its policies decide by what is their own, so that
// SaveSnapshot() can be asked.
bool HasState(const Snapshot& snapshot);

// It can be written down: as tokens alone where every row stays as written, else with its state.
// Not so what lies in the memory of a device.
bool CanBeStored(const Snapshot& snapshot);

// Names groups by their places in GroupsOf(). Thread-safe, since a snapshot never changes. Errors:
// kFailedPrecondition for more rows or bytes than are written down, those of
// RetentionPolicy::SaveState().
absl::StatusOr<std::string> SaveSnapshot(const Snapshot& snapshot);

// A kept group or record that RestoreSnapshot() asks for.
struct WantedGroup {
  uint32_t lane = 0;
  size_t index = 0;  // among the groups of its lane, recent blocks behind all others
  const shm::GroupGeometry* geometry = nullptr;  // lives as long as the layout
  const LaneRecords* records = nullptr;          // null: as written
  std::vector<KeptSlot> slots;
};

// Where groups come from.
struct GroupSupply {
  // Filled, or to be filled.
  std::function<absl::StatusOr<std::shared_ptr<KeptGroup>>(WantedGroup wanted)> kept;
  // The allocator of recent blocks of this many bytes.
  std::function<GroupAllocator&(uint64_t bytes)> recent_allocator;
  // Adds a recent block; `index` as in WantedGroup. Returns the digest of its planes where somebody
  // has said it, of all of them or of none.
  std::function<absl::StatusOr<std::optional<GroupDigest>>(uint32_t lane, size_t index,
                                                           uint64_t plane_bytes, BlockList* into)>
      recent;
};

// What SaveSnapshot() gave, for a snapshot of these facts. The bytes may be a stranger's: each
// field is checked by itself, against the others, and against what the policies say of their last
// tables. `lanes`: newly made of facts.retention. `layouts` may be null. Errors: kDataLoss or
// kInvalidArgument naming the field and its bound, kFailedPrecondition where the retention makes
// other lanes now, those of the supply.
absl::StatusOr<std::shared_ptr<const Snapshot>> RestoreSnapshot(
    const Model& model, const SnapshotFacts& facts, PolicyLanes lanes,
    const std::shared_ptr<const ModelProfile>& profile, std::string_view state,
    LaneLayouts* layouts, const GroupSupply& supply);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SNAPSHOT_STATE_H_
