// Rows of a sequence that lie in records.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {

absl::Status Sequence::MakeRecords(const std::optional<EncodingSpec>& encoding) {
  for (Lane& lane : lanes_) {
    KVASIR_ASSIGN_OR_RETURN(lane.records, LaneRecordsFor(encoding, *context_.model, lane.layers,
                                                         *lane.policy, context_.profile));
    if (lane.records != nullptr) SetKeptSizes(lane);
  }
  return absl::OkStatus();
}

void Sequence::SetKeptSizes(Lane& lane) const {
  GroupSource& kept = *context_.kept_rows;
  const KeptShapes& shapes = *lane.kept_shapes;
  lane.kept_sizes = {&shapes.block, &kept.For(shapes.block), &shapes.small,
                     &kept.For(shapes.small)};
  if (lane.records == nullptr) return;
  lane.record_allocator = &kept.For(lane.records->geometry);
  if (lane.policy->encodable().rows != EncodableRows::kKept) return;
  lane.kept_sizes.block = &lane.records->geometry;
  lane.kept_sizes.block_allocator = lane.record_allocator;
  lane.kept_sizes.records = lane.records.get();
}

absl::StatusOr<std::vector<WindowRecord>> Sequence::ApplyRecords(const Lane& lane,
                                                                 const LaneTable& before,
                                                                 const RetentionPlan& plan,
                                                                 std::vector<GroupFill>* fills) {
  if (plan.records_from < before.records_from) {
    return Internal("plan shows records again that were given back: records_from={} min={}",
                    plan.records_from, before.records_from);
  }
  std::vector<WindowRecord> records;
  for (const WindowRecord& record : before.records) {
    if (record.first_row + record.group->rows() > plan.records_from) records.push_back(record);
  }
  if (plan.record_first == plan.record_last) return records;
  const uint64_t rows = lane.records == nullptr ? 0 : lane.records->geometry.slots;
  if (rows == 0 || plan.record_last - plan.record_first != rows ||
      plan.record_first < before.recent_first) {
    return Internal("plan makes a record that does not fit: first={} last={} rows={} min={}",
                    plan.record_first, plan.record_last, rows, before.recent_first);
  }
  KVASIR_ASSIGN_OR_RETURN(const Group group, lane.record_allocator->Allocate());
  GroupFill fill{std::make_shared<KeptGroup>(group, lane.records->geometry, *lane.record_allocator,
                                             lane.records.get()),
                 {}};
  for (uint64_t row = plan.record_first; row < plan.record_last; ++row) {
    KVASIR_ASSIGN_OR_RETURN(const IncomingRow incoming, Incoming(lane, {row, row}));
    fill.group->slots.push_back(incoming.slot);
    fill.sources.push_back(incoming.source);
  }
  records.push_back({fill.group, plan.record_first});
  fills->push_back(std::move(fill));
  return records;
}

}  // namespace kvasir::core
