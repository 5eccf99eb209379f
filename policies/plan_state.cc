#include "policies/plan_state.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/state_codec.h"
#include "base/status_macros.h"
#include "policies/policy_state.h"

namespace kvasir {
namespace {

constexpr StateFormat kPlanState{"KVRETPLN", 1, 64 * kMiB, "plan", "class"};
constexpr uint64_t kEntriesMax = std::numeric_limits<uint32_t>::max();

void WriteMoves(const RetentionPlan& plan, StateWriter& writer) {
  writer.Number(plan.drop.size());
  for (const uint32_t index : plan.drop) writer.Id(index);
  writer.Number(plan.append.size());
  for (const MovedRow& moved : plan.append) {
    writer.Number(moved.row);
    writer.Number(moved.rotated_at);
  }
  writer.Number(plan.spans.size());
  for (const KeptSpan& span : plan.spans) {
    writer.Number(span.count);
    writer.Number(std::bit_cast<uint64_t>(span.query_offset));
    writer.Number(span.query_max);
  }
  writer.Number(plan.sticky.size());
  for (const uint64_t row : plan.sticky) writer.Number(row);
  writer.Number(plan.keep.size());
  for (const KeepSet& set : plan.keep) {
    writer.Number(set.size());
    for (const uint32_t entry : set) writer.Id(entry);
  }
}

// Strictly ascending indices.
std::vector<uint32_t> ReadIndices(const char* field, uint64_t count, StateReader& reader) {
  std::vector<uint32_t> indices;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    indices.push_back(reader.Id(field));
    if (i > 0 && indices[i] <= indices[i - 1]) {
      reader.Fail(DataLoss("plan has entries that do not ascend: {}={} after={}", field, indices[i],
                           indices[i - 1]));
    }
  }
  return indices;
}

void ReadSpans(StateReader& reader, RetentionPlan& plan) {
  constexpr auto kFarthest = static_cast<int64_t>(2 * kStateRowsMax);
  const uint64_t spans = reader.Count("spans", 24, kEntriesMax);
  uint64_t room = kStateRowsMax;
  for (uint64_t i = 0; i < spans && reader.ok(); ++i) {
    KeptSpan span;
    span.count = reader.Number("span_count", 1, room);
    span.query_offset = reader.Signed("query_offset", -kFarthest, kFarthest);
    span.query_max = reader.Number("query_max", 0, kNoRow);
    room -= span.count;
    plan.spans.push_back(span);
  }
}

void ReadKeep(StateReader& reader, RetentionPlan& plan) {
  const uint64_t columns = reader.Count("columns", 8, kEntriesMax);
  if (columns > 0 && (!plan.drop.empty() || !plan.append.empty())) {
    reader.Fail(DataLoss("plan edits the kept rows in two ways: drop={} append={} columns={}",
                         plan.drop.size(), plan.append.size(), columns));
  }
  for (uint64_t i = 0; i < columns && reader.ok(); ++i) {
    const uint64_t size = reader.Count("keep", 4, i == 0 ? kEntriesMax : plan.keep[0].size());
    plan.keep.push_back(ReadIndices("keep_entry", size, reader));
    if (plan.keep[i].size() != plan.keep[0].size()) {
      reader.Fail(DataLoss("plan keeps more rows in one column than in another: keep={} other={}",
                           plan.keep[i].size(), plan.keep[0].size()));
    }
  }
}

void ReadMoves(uint64_t rows, StateReader& reader, RetentionPlan& plan) {
  plan.drop = ReadIndices("drop", reader.Count("drops", 4, kEntriesMax), reader);
  const uint64_t moved = reader.Count("append", 16, plan.recent_first);
  for (uint64_t i = 0; i < moved && reader.ok(); ++i) {
    MovedRow row;
    row.row = reader.Number("row", 0, plan.recent_first - 1);
    row.rotated_at = reader.Number("rotated_at", 0, kStateRowsMax);
    plan.append.push_back(row);
  }
  ReadSpans(reader, plan);
  const uint64_t sticky = reader.Count("sticky", 8, rows - plan.recent_first);
  for (uint64_t i = 0; i < sticky && reader.ok(); ++i) {
    const uint64_t min = i == 0 ? plan.recent_first : plan.sticky.back() + 1;
    plan.sticky.push_back(reader.Number("sticky_row", min, rows - 1));
  }
  ReadKeep(reader, plan);
}

}  // namespace

std::string SavePlan(const RetentionPlan& plan) {
  StateWriter writer;
  for (const uint64_t number : {plan.from_row, plan.until_row, plan.recent_first, plan.window,
                                plan.seal_first, plan.seal_last, plan.record_first,
                                plan.record_last, plan.records_from, plan.far_position}) {
    writer.Number(number);
  }
  WriteMoves(plan, writer);
  return SealState(kPlanState, "", writer.bytes());
}

absl::StatusOr<RetentionPlan> LoadPlan(std::string_view bytes, uint64_t rows) {
  if (rows > kStateRowsMax) {
    return InvalidArgument("plan of too many rows: rows={} max={}", rows, kStateRowsMax);
  }
  KVASIR_ASSIGN_OR_RETURN(const std::string_view body, OpenState(kPlanState, "", bytes));
  StateReader reader(kPlanState, body);
  RetentionPlan plan;
  plan.from_row = reader.Number("from_row", 0, 2 * kStateRowsMax);
  plan.until_row = reader.Number("until_row", plan.from_row + 1, kNoRow);
  plan.recent_first = reader.Number("recent_first", 0, rows);
  plan.window = reader.Number("window", 0, kStateRowsMax);
  // What leaves recent for a block or a record lies below recent_first then.
  plan.seal_first = reader.Number("seal_first", 0, plan.recent_first);
  plan.seal_last = reader.Number("seal_last", plan.seal_first, plan.recent_first);
  plan.record_first = reader.Number("record_first", 0, plan.recent_first);
  plan.record_last = reader.Number("record_last", plan.record_first, plan.recent_first);
  plan.records_from = reader.Number("records_from", 0, plan.recent_first);
  plan.far_position = reader.Number("far_position", 0, kStateRowsMax);
  ReadMoves(rows, reader, plan);
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  return plan;
}

}  // namespace kvasir
