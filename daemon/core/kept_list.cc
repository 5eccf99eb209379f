#include "daemon/core/kept_list.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::core {
namespace {

// The runs without the entries at `drop`.
absl::StatusOr<std::vector<KeptRun>> WithoutDropped(const std::vector<KeptRun>& runs,
                                                    std::span<const uint32_t> drop) {
  std::vector<KeptRun> out;
  size_t next = 0;
  uint64_t base = 0;  // index of the run's first row in the list
  for (const KeptRun& run : runs) {
    uint32_t at = 0;
    while (at < run.rows) {
      uint64_t stop = run.rows;
      if (next < drop.size() && drop[next] < base + run.rows) stop = drop[next] - base;
      if (stop > at) {
        out.push_back({run.group, run.first_slot + at, static_cast<uint32_t>(stop - at)});
      }
      if (stop == run.rows) break;
      at = static_cast<uint32_t>(stop) + 1;
      ++next;
      if (next < drop.size() && drop[next] <= drop[next - 1]) {
        return InvalidArgument("plan.drop is not ascending: index={}", next);
      }
    }
    base += run.rows;
  }
  if (next != drop.size()) {
    return InvalidArgument("plan.drop is out of range: index={} rows={}", drop[next], base);
  }
  return out;
}

// Slots that `rows` rows take when packed into whole blocks and small groups.
uint64_t PackedSlots(uint64_t rows, const KeptGroupSizes& sizes) {
  const uint64_t block = sizes.block->slots, small = sizes.small->slots;
  return RoundDown(rows, block) + RoundUp(rows % block, small);
}

// Consecutive runs [begin, end) that an edit writes anew.
struct Segment {
  size_t begin = 0, end = 0;
};

bool IsSparse(const KeptRun& run, const std::map<const KeptGroup*, uint64_t>& live) {
  return run.group->records() == nullptr &&
         live.at(run.group.get()) * 2 < run.group->geometry().slots;
}

// A row that must stay as written.
bool IsSink(const KeptSlot& slot, const KeptGroupSizes& sizes) {
  return sizes.records != nullptr && slot.row < sizes.records->n_sink;
}

bool MayRewrite(const KeptRun& run, const std::map<const KeptGroup*, uint64_t>& live,
                const KeptGroupSizes& sizes) {
  if (IsSink(run.group->slots[run.first_slot], sizes)) return false;
  return run.group->geometry().slots == sizes.small->slots || IsSparse(run, live);
}

std::vector<Segment> SegmentsToRewrite(const std::vector<KeptRun>& runs, bool appending,
                                       const KeptGroupSizes& sizes) {
  std::map<const KeptGroup*, uint64_t> live;
  for (const KeptRun& run : runs) live[run.group.get()] += run.rows;
  std::vector<Segment> segments;
  for (size_t i = 0; i < runs.size();) {
    size_t end = i;
    uint64_t rows = 0, slots = 0;
    bool sparse = false;
    const KeptGroup* last = nullptr;
    while (end < runs.size() && MayRewrite(runs[end], live, sizes)) {
      sparse |= IsSparse(runs[end], live);
      rows += runs[end].rows;
      if (runs[end].group.get() != last) slots += runs[end].group->geometry().slots;
      last = runs[end].group.get();
      ++end;
    }
    const bool tail = end == runs.size() && appending;
    if (end > i && (tail || (sparse && PackedSlots(rows, sizes) < slots))) {
      segments.push_back({i, end});
    }
    i = std::max(end, i + 1);
  }
  return segments;
}

std::vector<IncomingRow> RowsOf(std::span<const KeptRun> runs) {
  std::vector<IncomingRow> rows;
  for (const KeptRun& run : runs) {
    for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
      rows.push_back(
          {run.group->slots[s], {run.group->group().data(), &run.group->geometry(), s, 0}});
    }
  }
  return rows;
}

// New groups for `rows`, appended to `runs` and `fills`.
absl::Status Pack(std::span<const IncomingRow> rows, const KeptGroupSizes& sizes,
                  std::vector<KeptRun>* runs, std::vector<GroupFill>* fills) {
  while (!rows.empty()) {
    const auto sinks = static_cast<size_t>(
        std::find_if(rows.begin(), rows.end(),
                     [&](const IncomingRow& row) { return !IsSink(row.slot, sizes); }) -
        rows.begin());
    const bool whole = sinks == 0 && rows.size() >= sizes.block->slots;
    const shm::GroupGeometry& geometry = whole ? *sizes.block : *sizes.small;
    GroupAllocator& allocator = whole ? *sizes.block_allocator : *sizes.small_allocator;
    KVASIR_ASSIGN_OR_RETURN(const Group group, allocator.Allocate());
    GroupFill fill{
        std::make_shared<KeptGroup>(group, geometry, allocator, whole ? sizes.records : nullptr),
        {}};
    const size_t count = std::min<size_t>(sinks > 0 ? sinks : rows.size(), geometry.slots);
    for (const IncomingRow& row : rows.first(count)) {
      fill.group->slots.push_back(row.slot);
      fill.sources.push_back(row.source);
    }
    runs->push_back({fill.group, 0, static_cast<uint32_t>(count)});
    fills->push_back(std::move(fill));
    rows = rows.subspan(count);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KeptList> KeptList::Edit(std::span<const uint32_t> drop,
                                        std::span<const IncomingRow> incoming,
                                        const KeptGroupSizes& sizes,
                                        std::vector<GroupFill>* fills) const {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<KeptRun> left, WithoutDropped(runs_, drop));
  const std::vector<Segment> segments = SegmentsToRewrite(left, !incoming.empty(), sizes);
  KeptList list;
  bool appended = false;
  size_t at = 0;
  for (const Segment& segment : segments) {
    list.runs_.insert(list.runs_.end(), left.begin() + static_cast<ptrdiff_t>(at),
                      left.begin() + static_cast<ptrdiff_t>(segment.begin));
    std::vector<IncomingRow> rows =
        RowsOf(std::span(left).subspan(segment.begin, segment.end - segment.begin));
    if (segment.end == left.size()) {
      rows.insert(rows.end(), incoming.begin(), incoming.end());
      appended = true;
    }
    KVASIR_RETURN_IF_ERROR(Pack(rows, sizes, &list.runs_, fills));
    at = segment.end;
  }
  list.runs_.insert(list.runs_.end(), left.begin() + static_cast<ptrdiff_t>(at), left.end());
  if (!appended) KVASIR_RETURN_IF_ERROR(Pack(incoming, sizes, &list.runs_, fills));
  for (const KeptRun& run : list.runs_) list.rows_ += run.rows;
  return list;
}

KeptList KeptList::Of(std::vector<KeptRun> runs) {
  KeptList list;
  for (const KeptRun& run : runs) list.rows_ += run.rows;
  list.runs_ = std::move(runs);
  return list;
}

KeptList KeptList::First(uint64_t rows) const {
  KeptList list;
  for (const KeptRun& run : runs_) {
    if (list.rows_ == rows) break;
    list.runs_.push_back(run);
    list.runs_.back().rows = static_cast<uint32_t>(std::min<uint64_t>(run.rows, rows - list.rows_));
    list.rows_ += list.runs_.back().rows;
  }
  return list;
}

}  // namespace kvasir::core
