#include "allocator/tier/space_map.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace kvasir {
namespace {

constexpr uint64_t kWordBits = 64;

}  // namespace

std::vector<Piece> PiecesOf(std::span<const UnitRun> runs, uint64_t unit_bytes, uint64_t area_bytes,
                            uint64_t bytes) {
  std::vector<Piece> pieces;
  for (const UnitRun& run : runs) {
    uint64_t at = run.first * unit_bytes;
    uint64_t left = std::min(bytes, run.count * unit_bytes);
    bytes -= left;
    while (left > 0) {
      const uint64_t offset = at % area_bytes;
      const uint64_t here = std::min(left, area_bytes - offset);
      pieces.push_back({static_cast<uint32_t>(at / area_bytes), offset, here});
      at += here;
      left -= here;
    }
  }
  KVASIR_CHECK(bytes == 0, "the runs of a block are shorter than the block: missing_bytes={}",
               bytes);
  return pieces;
}

uint64_t SpaceMap::Next(uint64_t at, uint64_t flip) const {
  while (at < units_) {
    const uint64_t word = (free_[at / kWordBits] ^ flip) >> (at % kWordBits);
    if (word != 0) return std::min(units_, at + static_cast<uint64_t>(std::countr_zero(word)));
    at = (at / kWordBits + 1) * kWordBits;
  }
  return units_;
}

void SpaceMap::Mark(uint64_t first, uint64_t count, bool free) {
  for (uint64_t at = first; at < first + count;) {
    const uint64_t bit = at % kWordBits;
    const uint64_t here = std::min(kWordBits - bit, first + count - at);
    const uint64_t mask = (here == kWordBits ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << bit;
    uint64_t& word = free_[at / kWordBits];
    KVASIR_CHECK((word & mask) == (free ? 0 : mask), "units change twice: first={} count={}", first,
                 count);
    word ^= mask;
    at += here;
  }
  free_units_ = free ? free_units_ + count : free_units_ - count;
}

std::optional<UnitRuns> SpaceMap::Take(uint64_t units) {
  if (units > free_units_) return std::nullopt;
  // One run that is long enough, round the map from the cursor.
  uint64_t at = cursor_;
  bool wrapped = false;
  for (size_t seen = 0; seen < kRunsSeen; ++seen) {
    const uint64_t first = NextFree(at);
    if (first == units_) {
      if (wrapped) break;
      wrapped = true;
      at = 0;
      continue;
    }
    const uint64_t end = NextTaken(first);
    if (end - first >= units) {
      Mark(first, units, false);
      cursor_ = first + units;
      return UnitRuns{{static_cast<uint32_t>(first), static_cast<uint32_t>(units)}};
    }
    at = end;
  }
  // Several runs: whatever comes first.
  UnitRuns runs;
  at = cursor_;
  while (units > 0) {
    const uint64_t first = NextFree(at);
    if (first == units_) {
      at = 0;  // at most once: enough units are free
      continue;
    }
    const uint64_t count = std::min(units, NextTaken(first) - first);
    Mark(first, count, false);
    runs.push_back({static_cast<uint32_t>(first), static_cast<uint32_t>(count)});
    units -= count;
    at = first + count;
  }
  cursor_ = at;
  return runs;
}

bool SpaceMap::TakeThese(std::span<const UnitRun> runs) {
  size_t taken = 0;
  for (const UnitRun& run : runs) {
    const uint64_t end = uint64_t{run.first} + run.count;
    if (run.count == 0 || end > units_ || NextFree(run.first) != run.first ||
        NextTaken(run.first) < end) {
      break;
    }
    Mark(run.first, run.count, false);
    ++taken;
  }
  if (taken == runs.size()) return true;
  Give(runs.first(taken));
  return false;
}

void SpaceMap::Give(std::span<const UnitRun> runs) {
  for (const UnitRun& run : runs) Mark(run.first, run.count, true);
}

void SpaceMap::Resize(uint64_t units) {
  KVASIR_CHECK(units <= kUnitsMax, "too many units: units={}", units);
  const uint64_t before = units_;
  if (units < before) {
    KVASIR_CHECK(NextTaken(units) == before, "a unit that goes is taken: units={}", units);
    Mark(units, before - units, false);
  }
  free_.resize((units + kWordBits - 1) / kWordBits, 0);
  units_ = units;
  if (units > before) Mark(before, units - before, true);
  cursor_ = std::min(cursor_, units_);
}

UnitRuns SpaceMap::TakeFreeFrom(uint64_t first) {
  UnitRuns runs;
  for (uint64_t at = NextFree(first); at < units_; at = NextFree(at)) {
    const uint64_t count = NextTaken(at) - at;
    Mark(at, count, false);
    runs.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(count)});
    at += count;
  }
  return runs;
}

}  // namespace kvasir
