// One lane of a snapshot's state (snapshot_state.h) as it is read: checked, and without memory yet.
//
// Plain values and pure functions; thread-safe.
#ifndef KVASIR_DAEMON_CORE_SNAPSHOT_LANE_STATE_H_
#define KVASIR_DAEMON_CORE_SNAPSHOT_LANE_STATE_H_

#include <cstdint>
#include <deque>
#include <string_view>
#include <vector>

#include "base/state_codec.h"
#include "daemon/core/lane_table.h"
#include "daemon/core/snapshot_state_format.h"

namespace kvasir::core {

struct LaneState {
  struct Group {
    GroupRole role = GroupRole::kBlock;
    uint32_t rows = 0;
    std::vector<KeptSlot> slots;  // as in KeptGroup
  };
  struct Run {
    uint32_t group = 0, first_slot = 0, rows = 0;
  };
  struct Record {
    uint32_t group = 0;
    uint64_t first_row = 0;
  };
  struct Table {
    std::vector<Run> runs;
    std::vector<Record> records;
    LaneTable facts;  // without groups
  };
  std::vector<Group> groups;
  Table table, next;
  std::string_view policy;            // RetentionPolicy::SaveState(); of the reader's bytes
  std::deque<RetentionPlan> pending;  // returned by the policy, in no table yet
};

// What a lane is checked against.
struct LaneBounds {
  uint64_t rows = 0;
  bool has_next = false;
  uint32_t vocabulary_size = 0;
  const LaneLayout* layout = nullptr;
};

// Null: the lane has no such groups.
const shm::GroupGeometry* GeometryOf(const LaneLayout& layout, GroupRole role);

// What is wrong stays in the reader.
void ReadLaneState(const LaneBounds& bounds, StateReader& reader, LaneState& lane);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SNAPSHOT_LANE_STATE_H_
