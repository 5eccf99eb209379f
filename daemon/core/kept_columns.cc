// KeptList of lanes with columns: every column keeps its own rows, all of them equally many.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kept_list.h"

namespace kvasir::core {
namespace {

// Where the entries of a list lie: the same place in every column.
struct Place {
  const KeptGroup* group = nullptr;
  uint32_t slot = 0;
};

std::vector<Place> PlacesOf(const std::vector<KeptRun>& runs) {
  std::vector<Place> places;
  for (const KeptRun& run : runs) {
    for (uint32_t i = 0; i < run.rows; ++i) places.push_back({run.group.get(), run.first_slot + i});
  }
  return places;
}

absl::Status CheckSets(std::span<const KeepSet> keep, uint64_t entries) {
  for (size_t column = 0; column < keep.size(); ++column) {
    const KeepSet& set = keep[column];
    if (set.size() != keep.front().size()) {
      return InvalidArgument("plan.keep has sets of other sizes: column={} rows={} expected={}",
                             column, set.size(), keep.front().size());
    }
    if (!std::is_sorted(set.begin(), set.end(), std::less_equal<>())) {
      return InvalidArgument("plan.keep is not ascending: column={}", column);
    }
    if (!set.empty() && set.back() >= entries) {
      return InvalidArgument("plan.keep is out of range: column={} entry={} entries={}", column,
                             set.back(), entries);
    }
  }
  return absl::OkStatus();
}

// Every column keeps the entries [first, first + rows) where they are.
bool StaysInPlace(std::span<const KeepSet> keep, uint64_t first, uint64_t rows) {
  return std::all_of(keep.begin(), keep.end(), [&](const KeepSet& set) {
    // Ascending, so the ends of the range decide.
    return set.size() >= first + rows && set[first] == first &&
           set[first + rows - 1] == first + rows - 1;
  });
}

}  // namespace

absl::StatusOr<KeptList> KeptList::Rebuild(std::span<const KeepSet> keep,
                                           std::span<const IncomingRow> recent,
                                           const KeptGroupSizes& sizes,
                                           std::vector<GroupFill>* fills) const {
  if (keep.size() != sizes.block->trailer.position_sets) {
    return InvalidArgument("plan.keep has the wrong number of columns: columns={} expected={}",
                           keep.size(), sizes.block->trailer.position_sets);
  }
  KVASIR_RETURN_IF_ERROR(CheckSets(keep, rows_ + recent.size()));
  KeptList list;
  list.rows_ = keep.front().size();
  uint64_t done = 0;
  for (const KeptRun& run : runs_) {
    const bool whole = run.rows == sizes.block->slots;
    if (!whole || !StaysInPlace(keep, done, run.rows)) break;
    list.runs_.push_back(run);
    done += run.rows;
  }
  const std::vector<Place> places = PlacesOf(runs_);
  while (done < list.rows_) {
    const bool whole = list.rows_ - done >= sizes.block->slots;
    const shm::GroupGeometry& geometry = whole ? *sizes.block : *sizes.small;
    GroupAllocator& allocator = whole ? *sizes.block_allocator : *sizes.small_allocator;
    KVASIR_ASSIGN_OR_RETURN(const Group group, allocator.Allocate());
    GroupFill fill{std::make_shared<KeptGroup>(group, geometry, allocator), {}};
    const uint64_t count = std::min<uint64_t>(list.rows_ - done, geometry.slots);
    for (uint32_t column = 0; column < keep.size(); ++column) {
      for (uint64_t i = done; i < done + count; ++i) {
        const uint32_t entry = keep[column][i];
        if (entry >= rows_) {
          fill.group->slots.push_back(recent[entry - rows_].slot);
          fill.sources.push_back(recent[entry - rows_].source);
          continue;
        }
        const Place& place = places[entry];
        fill.group->slots.push_back(place.group->Slot(column, place.slot));
        fill.sources.push_back(
            {place.group->group().data(), &place.group->geometry(), place.slot, 0});
      }
    }
    list.runs_.push_back({fill.group, 0, static_cast<uint32_t>(count)});
    fills->push_back(std::move(fill));
    done += count;
  }
  return list;
}

}  // namespace kvasir::core
