#include "daemon/core/lane_table.h"

#include <algorithm>

namespace kvasir::core {

uint64_t LaneTable::WindowFirst(uint64_t row) const {
  const uint64_t first =
      records.empty() ? recent_first : std::max(records.front().first_row, records_from);
  const uint64_t low = window == 0 || row + 1 <= window ? 0 : row + 1 - window;
  return std::max(low, first);
}

void AddGroups(const TableVersion& version, std::set<const KeptGroup*>* groups) {
  for (const LaneTable& lane : version.lanes) {
    for (const KeptRun& run : lane.kept.runs()) groups->insert(run.group.get());
    for (const WindowRecord& record : lane.records) groups->insert(record.group.get());
  }
  for (const auto& group : version.filling) groups->insert(group.get());
}

}  // namespace kvasir::core
