#include "daemon/core/snapshot_lane_state.h"

#include <utility>

#include <absl/status/statusor.h>

#include "base/error.h"
#include "policies/plan_state.h"
#include "policies/policy_state.h"

namespace kvasir::core {
namespace {

class LaneReader {
 public:
  LaneReader(const LaneBounds& bounds, StateReader& reader, LaneState& lane)
      : bounds_(bounds), reader_(reader), lane_(lane) {}

  void Read() {
    const uint64_t groups = reader_.Count("groups", 20, 2 * bounds_.rows);
    for (uint64_t i = 0; i < groups && reader_.ok(); ++i) ReadGroup(lane_.groups.emplace_back());
    ReadTable(lane_.table);
    if (bounds_.has_next) ReadTable(lane_.next);
    const uint64_t first = lane_.table.facts.recent_first;
    if (reader_.ok() && bounds_.has_next && lane_.next.facts.recent_first < first) {
      reader_.Fail(DataLoss("snapshot has a next table that begins earlier: recent_first={} min={}",
                            lane_.next.facts.recent_first, first));
    }
    lane_.policy = reader_.Text("policy");
    const uint64_t pending = reader_.Count("pending", 8, bounds_.rows);
    for (uint64_t i = 0; i < pending && reader_.ok(); ++i) ReadPlan();
  }

 private:
  uint64_t EndOf(const LaneState::Record& record) const {
    return record.first_row + lane_.groups[record.group].rows;
  }

  void ReadPlan() {
    absl::StatusOr<RetentionPlan> plan = LoadPlan(reader_.Text("plan"), bounds_.rows);
    if (!plan.ok()) return reader_.Fail(plan.status());
    lane_.pending.push_back(*std::move(plan));
  }

  void ReadGroup(LaneState::Group& group) {
    const uint32_t role = reader_.Id("role");
    group.role = static_cast<GroupRole>(role);
    const shm::GroupGeometry* const geometry = GeometryOf(*bounds_.layout, group.role);
    if (geometry == nullptr) {
      return reader_.Fail(
          DataLoss("snapshot has a group of a kind that its lane has not: role={}", role));
    }
    group.rows = reader_.Id("group_rows");
    if (group.rows == 0 || group.rows > geometry->slots) {
      return reader_.Fail(DataLoss("snapshot is out of bounds: group_rows={} min=1 max={}",
                                   group.rows, geometry->slots));
    }
    const uint64_t slots = uint64_t{group.rows} * geometry->trailer.position_sets;
    if (!reader_.Holds("slots", slots, 12)) return;
    for (uint64_t i = 0; i < slots; ++i) {
      KeptSlot slot;
      slot.row = reader_.Id("slot_row");
      slot.rotated_at = reader_.Id("slot_rotated_at");
      slot.token = reader_.Id("slot_token");
      if (slot.row >= bounds_.rows || slot.rotated_at >= bounds_.rows ||
          slot.token >= bounds_.vocabulary_size) {
        return reader_.Fail(DataLoss(
            "snapshot is out of bounds: slot_row={} slot_rotated_at={} rows={} slot_token={} "
            "vocabulary_size={}",
            slot.row, slot.rotated_at, bounds_.rows, slot.token, bounds_.vocabulary_size));
      }
      group.slots.push_back(slot);
    }
  }

  void ReadTable(LaneState::Table& table) {
    const uint64_t kept = ReadRuns(table);
    ReadRecords(table);
    LaneTable& facts = table.facts;
    facts.records_from = reader_.Number("records_from", 0, bounds_.rows);
    ReadSpans(kept, facts);
    facts.from_row = reader_.Number("table_from_row", 0, kStateRowsMax);
    facts.recent_first = reader_.Number("recent_first", 0, bounds_.rows);
    facts.window = reader_.Number("window", 0, kStateRowsMax);
    facts.until_row = reader_.Number("table_until_row", facts.from_row, kNoRow);
    facts.cut_row = reader_.Number("cut_row", 0, kStateRowsMax);
    const uint64_t sticky = reader_.Count("sticky", 8, bounds_.rows - facts.recent_first);
    for (uint64_t i = 0; i < sticky && reader_.ok(); ++i) {
      const uint64_t min = i == 0 ? facts.recent_first : facts.sticky.back() + 1;
      facts.sticky.push_back(reader_.Number("sticky_row", min, bounds_.rows - 1));
    }
    if (!reader_.ok()) return;
    for (const LaneState::Run& run : table.runs) CheckRun(run, facts.recent_first);
    for (const LaneState::Record& record : table.records) CheckRecord(record, facts.recent_first);
  }

  // How many rows there are.
  uint64_t ReadRuns(LaneState::Table& table) {
    const uint64_t runs = reader_.Count("runs", 12, bounds_.rows);
    uint64_t kept = 0;
    for (uint64_t i = 0; i < runs && reader_.ok(); ++i) {
      LaneState::Run run;
      run.group = reader_.Id("run_group");
      run.first_slot = reader_.Id("run_first_slot");
      run.rows = reader_.Id("run_rows");
      if (run.group >= lane_.groups.size() || run.rows == 0 ||
          uint64_t{run.first_slot} + run.rows > lane_.groups[run.group].rows) {
        reader_.Fail(
            DataLoss("snapshot has a run of no group: group={} groups={} first_slot={} rows={}",
                     run.group, lane_.groups.size(), run.first_slot, run.rows));
        break;
      }
      kept += run.rows;
      table.runs.push_back(run);
    }
    return kept;
  }

  void ReadRecords(LaneState::Table& table) {
    const uint64_t records = reader_.Count("records", 12, bounds_.rows);
    for (uint64_t i = 0; i < records && reader_.ok(); ++i) {
      LaneState::Record record;
      record.group = reader_.Id("record_group");
      record.first_row = reader_.Number("record_first_row", 0, bounds_.rows);
      if (record.group >= lane_.groups.size() ||
          lane_.groups[record.group].role != GroupRole::kRecord ||
          (i > 0 && record.first_row != EndOf(table.records.back()))) {
        return reader_.Fail(DataLoss(
            "snapshot has a record of no group, or out of order: group={} groups={} first_row={}",
            record.group, lane_.groups.size(), record.first_row));
      }
      table.records.push_back(record);
    }
  }

  void ReadSpans(uint64_t kept, LaneTable& table) {
    constexpr auto kFarthest = static_cast<int64_t>(2 * kStateRowsMax);
    const uint64_t spans = reader_.Count("spans", 24, kept);
    uint64_t left = kept;
    for (uint64_t i = 0; i < spans && reader_.ok(); ++i) {
      KeptSpan span;
      span.count = reader_.Number("span_count", 1, left);
      span.query_offset = reader_.Signed("query_offset", -kFarthest, kFarthest);
      span.query_max = reader_.Number("query_max", 0, kNoRow);
      left -= span.count;
      table.spans.push_back(span);
    }
    if (reader_.ok() && left > 0) {
      reader_.Fail(DataLoss("snapshot has kept rows in no span: rows={} of={}", left, kept));
    }
  }

  void CheckRun(const LaneState::Run& run, uint64_t recent_first) {
    const LaneState::Group& group = lane_.groups[run.group];
    for (size_t column = 0; column < group.slots.size() / group.rows; ++column) {
      for (uint32_t i = 0; i < run.rows; ++i) {
        const uint64_t row = group.slots[column * group.rows + run.first_slot + i].row;
        if (row < recent_first) continue;
        return reader_.Fail(DataLoss("snapshot keeps a row that is recent: row={} recent_first={}",
                                     row, recent_first));
      }
    }
  }

  void CheckRecord(const LaneState::Record& record, uint64_t recent_first) {
    const LaneState::Group& group = lane_.groups[record.group];
    for (uint32_t i = 0; i < group.rows; ++i) {
      if (group.slots[i].row == record.first_row + i && EndOf(record) <= recent_first) continue;
      return reader_.Fail(
          DataLoss("snapshot has a record of other rows: row={} expected={} recent_first={}",
                   group.slots[i].row, record.first_row + i, recent_first));
    }
  }

  const LaneBounds& bounds_;
  StateReader& reader_;
  LaneState& lane_;
};

}  // namespace

const shm::GroupGeometry* GeometryOf(const LaneLayout& layout, GroupRole role) {
  switch (role) {
    case GroupRole::kBlock:
      return &layout.shapes->block;
    case GroupRole::kSmall:
      return &layout.shapes->small;
    case GroupRole::kRecord:
      return layout.records == nullptr ? nullptr : &layout.records->geometry;
  }
  return nullptr;
}

void ReadLaneState(const LaneBounds& bounds, StateReader& reader, LaneState& lane) {
  LaneReader(bounds, reader, lane).Read();
}

}  // namespace kvasir::core
