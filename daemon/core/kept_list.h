// KeptList: the kept rows of one lane in one version of its table, as runs over sealed groups.
//
// What a table names never changes: an edit makes a new list that shares the groups that stay as
// they are, and new groups for rows that move. Groups are reference-counted by the lists that name
// them and freed with the last one.
#ifndef KVASIR_DAEMON_CORE_KEPT_LIST_H_
#define KVASIR_DAEMON_CORE_KEPT_LIST_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/group_allocator.h"
#include "daemon/core/record_format.h"
#include "policies/retention_policy.h"
#include "proto/shm/group_geometry.h"

namespace kvasir::core {

// Private copy of what the trailer of a group says about a slot, and where its key is rotated.
struct KeptSlot {
  uint64_t row = 0;
  uint64_t rotated_at = 0;
  TokenId token = 0;
  friend bool operator==(const KeptSlot&, const KeptSlot&) = default;
};

// XXH3-128 of the planes of a group, in canonical form.
using GroupDigest = std::array<uint8_t, 16>;

// Of the planes of a group: what lies before its trailer, which follows from its slots.
inline uint64_t PlaneBytes(const shm::GroupGeometry& geometry) { return geometry.pos_off; }

// A filled group. Destroying it frees the memory, so it must not outlive its allocator. Where the
// kv heads of a lane keep rows of their own it has columns, and a slot holds another row in each.
// Its rows lie as written or, with `records`, encoded as a whole.
class KeptGroup {
 public:
  KeptGroup(Group group, const shm::GroupGeometry& geometry, GroupAllocator& allocator,
            const LaneRecords* records = nullptr)
      : group_(group), geometry_(geometry), allocator_(allocator), records_(records) {}
  ~KeptGroup() { allocator_.Free(group_); }
  KeptGroup(const KeptGroup&) = delete;
  KeptGroup& operator=(const KeptGroup&) = delete;

  const Group& group() const { return group_; }
  const shm::GroupGeometry& geometry() const { return geometry_; }
  const GroupAllocator& allocator() const { return allocator_; }
  const LaneRecords* records() const { return records_; }  // null: as written
  uint32_t columns() const { return geometry_.trailer.position_sets; }
  uint32_t rows() const { return static_cast<uint32_t>(slots.size() / columns()); }
  const KeptSlot& Slot(uint32_t column, uint32_t slot) const {
    return slots[size_t{column} * rows() + slot];
  }
  // Filled slots, [column][slot]; constant once the group is in a list.
  std::vector<KeptSlot> slots;
  // Of its bytes, once somebody has read them all; and of an adopted group what the process before
  // said of it, until that is verified. Set under the core's lock.
  std::optional<GroupDigest> digest, promised;
  // The same rows in other memory, a device's or the host's, as long as something names them there.
  // Set under the core's lock.
  std::weak_ptr<KeptGroup> twin;

 private:
  const Group group_;
  const shm::GroupGeometry& geometry_;
  GroupAllocator& allocator_;
  const LaneRecords* const records_;
};

struct KeptRun {
  std::shared_ptr<KeptGroup> group;  // shared by the versions that name it
  uint32_t first_slot = 0;
  uint32_t rows = 0;
};

// Where the bytes of one slot of a new group come from.
struct SlotSource {
  const std::byte* group = nullptr;              // base of the source group
  const shm::GroupGeometry* geometry = nullptr;  // of the source group
  uint32_t slot = 0;
  int64_t rotate_by = 0;  // positions; 0: plain copy
};

// A new group and how to fill it. Executed by FillGroup (daemon/core/copy_job.h), off the lock.
struct GroupFill {
  std::shared_ptr<KeptGroup> group;
  std::vector<SlotSource> sources;  // one for each entry of group->slots
};

// The two sizes of kept groups of a lane: whole blocks, which may be records, and small groups.
struct KeptGroupSizes {
  const shm::GroupGeometry* block = nullptr;
  GroupAllocator* block_allocator = nullptr;
  const shm::GroupGeometry* small = nullptr;
  GroupAllocator* small_allocator = nullptr;
  const LaneRecords* records = nullptr;  // of whole blocks; null: as written
};

// A row that moves into the list, with everything the daemon knows about it.
struct IncomingRow {
  KeptSlot slot;
  SlotSource source;
};

class KeptList {
 public:
  // The list after dropping the entries at `drop` (ascending indices) and appending `incoming`, and
  // the groups to fill before it may be published. Whole blocks lie in block-sized groups, the rest
  // in small ones; groups of which under half is visible are repacked when that saves room. Rows
  // are encoded once: records stay as they are until none of their rows is visible, and the first
  // rows (LaneRecords::n_sink) are in none. Errors: kResourceExhausted when a group cannot be
  // allocated (nothing is leaked), kInvalidArgument for an index out of range.
  absl::StatusOr<KeptList> Edit(std::span<const uint32_t> drop,
                                std::span<const IncomingRow> incoming, const KeptGroupSizes& sizes,
                                std::vector<GroupFill>* fills) const;

  // The list of a lane with columns that has the entries of `keep`, one set for each column, all of
  // one size: indices into this list and, behind it, `recent`, which every column shares. Whole
  // blocks whose slots stay as they are in every column are shared; the rest is written anew.
  // Errors: as Edit; kInvalidArgument for sets that are not ascending, of other sizes or out of
  // range.
  absl::StatusOr<KeptList> Rebuild(std::span<const KeepSet> keep,
                                   std::span<const IncomingRow> recent, const KeptGroupSizes& sizes,
                                   std::vector<GroupFill>* fills) const;

  // Its first `rows` rows, in the same groups. REQUIRES: rows <= rows().
  KeptList First(uint64_t rows) const;

  // Of these runs, in this order.
  static KeptList Of(std::vector<KeptRun> runs);

  const std::vector<KeptRun>& runs() const { return runs_; }
  uint64_t rows() const { return rows_; }

 private:
  std::vector<KeptRun> runs_;
  uint64_t rows_ = 0;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_KEPT_LIST_H_
