// Snapshots of which every row stays as written, made of what was written down about them: that
// are read from a tier, or taken over from the process before.
#ifndef KVASIR_DAEMON_CORE_WHOLE_SNAPSHOT_H_
#define KVASIR_DAEMON_CORE_WHOLE_SNAPSHOT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "daemon/core/snapshot.h"

namespace kvasir::core {

// It may be gone on from at any row, so that tokens and rows are all that there is to it: whole
// runs of rows in groups of one column, nothing encoded, nothing recent.
bool IsWhole(const Snapshot& snapshot);

// What of it is written down. Found at borders alone, a whole one needs no rows behind the last.
std::shared_ptr<const Snapshot> WrittenOf(const std::shared_ptr<const Snapshot>& snapshot);

// Tokens of its rows. REQUIRES: IsWhole().
std::vector<TokenId> TokensOf(const Snapshot& snapshot);

// Rows of one lane, in order: the first `rows` slots of a group.
struct WholeRun {
  uint32_t group_slots = 0;
  uint32_t rows = 0;
  uint64_t plane_bytes = 0;
};

// Checked on the way: `facts` is of `tokens`, and of a model and lanes that its runs fit.
// `group_of`: the group of a run (lane, run in it), which begins at a row; filled, or to be filled.
// `layouts` may be null. Errors: kDataLoss naming lane and row of what does not fit,
// kFailedPrecondition where the lanes do not keep every row, those of `group_of`.
absl::StatusOr<std::shared_ptr<const Snapshot>> MakeWhole(
    const Model& model, const SnapshotFacts& facts, PolicyLanes lanes,
    std::span<const TokenId> tokens, const std::vector<std::vector<WholeRun>>& runs,
    LaneLayouts* layouts,
    const std::function<absl::StatusOr<std::shared_ptr<KeptGroup>>(
        size_t lane, size_t run, uint64_t row, const shm::GroupGeometry& geometry)>& group_of);

// The slots of a group whose rows, from `row` on, have these tokens.
std::vector<KeptSlot> WholeSlots(uint64_t row, std::span<const TokenId> tokens);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_WHOLE_SNAPSHOT_H_
