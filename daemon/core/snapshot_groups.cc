#include "daemon/core/snapshot_groups.h"

#include <utility>

namespace kvasir::core {
namespace {

class Collector {
 public:
  void AddTable(const LaneTable& table, uint32_t lane) {
    for (const KeptRun& run : table.kept.runs()) {
      // A whole snapshot ends within a group that others have filled further.
      Add(run.group, lane, run.first_slot == 0 ? run.rows : run.group->rows());
    }
    for (const WindowRecord& record : table.records) Add(record.group, lane, record.group->rows());
  }
  void Add(const std::shared_ptr<KeptGroup>& group, uint32_t lane, uint32_t rows) {
    if (seen_.insert(group.get()).second) groups_.push_back(KeptGroupOf(group, lane, rows));
  }
  std::vector<SnapshotGroup>& groups() { return groups_; }

 private:
  GroupSet seen_;
  std::vector<SnapshotGroup> groups_;
};

std::vector<SnapshotGroup> Collect(const Snapshot& snapshot, bool with_recent) {
  Collector collector;
  for (uint32_t lane = 0; lane < snapshot.lanes.size(); ++lane) {
    collector.AddTable(snapshot.table.lanes[lane], lane);
    if (snapshot.next) collector.AddTable(snapshot.next->lanes[lane], lane);
    if (!with_recent) continue;
    for (size_t i = 0; i < snapshot.lanes[lane].recent_groups().size(); ++i) {
      collector.groups().push_back(RecentGroupOf(snapshot, lane, i));
    }
  }
  return std::move(collector.groups());
}

}  // namespace

SnapshotGroup KeptGroupOf(std::shared_ptr<KeptGroup> group, uint32_t lane, uint32_t rows) {
  SnapshotGroup one;
  one.lane = lane;
  one.slots = group->geometry().slots;
  one.rows = rows;
  one.plane_bytes = PlaneBytes(group->geometry());
  one.kept = std::move(group);
  return one;
}

SnapshotGroup RecentGroupOf(const Snapshot& snapshot, uint32_t lane, size_t index) {
  const shm::GroupGeometry& geometry = snapshot.lanes[lane].kept_shapes->recent;
  SnapshotGroup one;
  one.recent = snapshot.lanes[lane].recent_groups()[index];
  one.lane = lane;
  one.slots = one.rows = geometry.slots;
  one.plane_bytes = PlaneBytes(geometry);
  return one;
}

std::vector<SnapshotGroup> GroupsOf(const Snapshot& snapshot) {
  return Collect(snapshot, /*with_recent=*/true);
}

std::vector<SnapshotGroup> KeptGroupsOf(const Snapshot& snapshot) {
  return Collect(snapshot, /*with_recent=*/false);
}

}  // namespace kvasir::core
