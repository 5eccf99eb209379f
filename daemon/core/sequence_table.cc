// How a sequence's tables and grants are written into the D segment.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {
namespace {

shm::RunEncoding EncodingOf(const KeptGroup& group) {
  if (group.records() != nullptr) return shm::RunEncoding::kRecords;
  return group.geometry().v_bits > 0 ? shm::RunEncoding::kCodedValues
                                     : shm::RunEncoding::kAsWritten;
}

// Runs of one lane as the engine reads them: cut at span borders, since a run has one query
// position.
absl::StatusOr<std::vector<shm::RunEntry>> RunEntries(const LaneTable& table,
                                                      ExtentTable& extents) {
  std::vector<shm::RunEntry> entries;
  size_t span = 0;
  uint64_t left_in_span = table.spans.empty() ? 0 : table.spans[0].count;
  for (const KeptRun& run : table.kept.runs()) {
    KVASIR_ASSIGN_OR_RETURN(const ExtentTable::Ref ref, extents.RefOf(*run.group->group().extent));
    for (uint32_t done = 0; done < run.rows;) {
      while (left_in_span == 0) left_in_span = table.spans[++span].count;
      const auto rows = static_cast<uint32_t>(std::min<uint64_t>(run.rows - done, left_in_span));
      shm::RunEntry entry{};
      entry.extent = ref.slot;
      entry.generation = ref.generation;
      entry.group_off = run.group->group().offset;
      entry.group_slots = run.group->geometry().slots;
      entry.first_slot = run.first_slot + done;
      entry.rows = rows;
      entry.encoding = static_cast<uint16_t>(EncodingOf(*run.group));
      entry.query_offset = table.spans[span].query_offset;
      entry.query_max = table.spans[span].query_max;
      entries.push_back(entry);
      done += rows;
      left_in_span -= rows;
    }
  }
  for (const WindowRecord& record : table.records) {
    const Group& group = record.group->group();
    KVASIR_ASSIGN_OR_RETURN(const ExtentTable::Ref ref, extents.RefOf(*group.extent));
    shm::RunEntry entry{};
    entry.extent = ref.slot;
    entry.generation = ref.generation;
    entry.group_off = group.offset;
    entry.group_slots = record.group->geometry().slots;
    entry.rows = record.group->rows();
    entry.encoding = static_cast<uint16_t>(shm::RunEncoding::kRecords);
    entry.flags = shm::kRunWindowed;
    entry.query_max = kNoRow;  // as recent rows: the query's own position
    entry.first_row = record.first_row;
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace

absl::Status Sequence::WriteTable(TableVersion& table) {
  std::vector<std::vector<shm::RunEntry>> runs;
  uint64_t bytes = RoundUp(sizeof(shm::LaneSpan) * table.lanes.size(), shm::kArenaUnit);
  for (const LaneTable& lane : table.lanes) {
    KVASIR_ASSIGN_OR_RETURN(std::vector<shm::RunEntry> entries,
                            RunEntries(lane, *context_.extents));
    bytes += sizeof(shm::RunEntry) * entries.size();
    bytes += RoundUp(sizeof(uint64_t) * lane.sticky.size(), shm::kArenaUnit);
    runs.push_back(std::move(entries));
  }
  KVASIR_ASSIGN_OR_RETURN(table.arena_off, context_.arena->Allocate(bytes));
  table.arena_bytes = bytes;
  uint64_t at =
      table.arena_off + RoundUp(sizeof(shm::LaneSpan) * table.lanes.size(), shm::kArenaUnit);
  for (size_t i = 0; i < table.lanes.size(); ++i) {
    const LaneTable& lane = table.lanes[i];
    shm::LaneSpan span{};
    span.runs_off = at;
    span.runs = static_cast<uint32_t>(runs[i].size());
    if (!runs[i].empty()) {
      std::memcpy(context_.d + at, runs[i].data(), sizeof(shm::RunEntry) * runs[i].size());
    }
    at += sizeof(shm::RunEntry) * runs[i].size();
    span.sticky_off = at;
    span.sticky = static_cast<uint32_t>(lane.sticky.size());
    if (!lane.sticky.empty()) {
      std::memcpy(context_.d + at, lane.sticky.data(), sizeof(uint64_t) * lane.sticky.size());
    }
    at += RoundUp(sizeof(uint64_t) * lane.sticky.size(), shm::kArenaUnit);
    span.kept_rows = lane.kept.rows();
    span.window = lane.window;
    span.recent_first = lane.recent_first;
    span.records_from = lane.records_from;
    std::memcpy(context_.d + table.arena_off + i * sizeof(span), &span, sizeof(span));
  }
  shm::VersionDesc& desc = context_.board->v[table.version & 1];
  desc.version = table.version;
  desc.from_row = table.from_row;
  desc.until_row = table.until_row;
  desc.lanes_off = table.arena_off;
  desc.lanes = static_cast<uint32_t>(table.lanes.size());
  desc.flags = 0;
  return absl::OkStatus();
}

void Sequence::Publish(TableVersion table) {
  const uint64_t version = table.version;
  published_ = std::move(table);
  // release: pairs with the acquire in the client's Sequence::Begin()
  context_.board->published.store(version, std::memory_order_release);
}

void Sequence::FreeTable(const TableVersion& table) {
  if (table.arena_bytes > 0) context_.arena->Free(table.arena_off, table.arena_bytes);
}

}  // namespace kvasir::core
