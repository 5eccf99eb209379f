// SpaceMap: which units of a place are free, and runs of units for a block.
//
// A block gets its units in one run where there is one, else in several: whatever has been written
// and erased before, a block fits if and only if as many units are free. So there is no outer
// fragmentation at all; what is lost is less than one unit a block, and long use costs more and
// shorter transfers instead (a unit is the shortest). Not thread-safe.
#ifndef KVASIR_ALLOCATOR_TIER_SPACE_MAP_H_
#define KVASIR_ALLOCATOR_TIER_SPACE_MAP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kvasir {

struct UnitRun {
  uint32_t first = 0;
  uint32_t count = 0;
  friend bool operator==(const UnitRun&, const UnitRun&) = default;
};

using UnitRuns = std::vector<UnitRun>;

// A run's bytes inside one area (a segment file, a chunk of memory): no transfer crosses areas.
struct Piece {
  uint32_t area = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// Where the first `bytes` bytes of `runs` lie. REQUIRES: the runs are that long; `area_bytes` is a
// multiple of `unit_bytes`.
std::vector<Piece> PiecesOf(std::span<const UnitRun> runs, uint64_t unit_bytes, uint64_t area_bytes,
                            uint64_t bytes);

class SpaceMap {
 public:
  static constexpr uint64_t kUnitsMax = uint64_t{1} << 31;

  // All free. REQUIRES: units <= kUnitsMax.
  explicit SpaceMap(uint64_t units) { Resize(units); }

  // Nothing when fewer are free. Looks at up to kRunsSeen free runs for one that is long enough,
  // from where it stopped last time; then takes what comes. Cost: a pass over the map at worst, 8
  // MiB for 2^26 units; usually a few words.
  std::optional<UnitRuns> Take(uint64_t units);

  // Takes these, for a restart. False, and nothing is taken, when one is not free or does not
  // exist.
  bool TakeThese(std::span<const UnitRun> runs);

  // REQUIRES: taken before.
  void Give(std::span<const UnitRun> runs);

  // New units are free. REQUIRES: when smaller, none of the units that go is taken.
  void Resize(uint64_t units);

  // Counts units from `first` on as taken, so that nobody gets them; Give() undoes it.
  // Returns which of them were free.
  UnitRuns TakeFreeFrom(uint64_t first);

  uint64_t units() const { return units_; }
  uint64_t free_units() const { return free_units_; }

 private:
  static constexpr size_t kRunsSeen = 256;

  // The first free (or taken) unit at or after `at`, or units_.
  uint64_t NextFree(uint64_t at) const { return Next(at, 0); }
  uint64_t NextTaken(uint64_t at) const { return Next(at, ~uint64_t{0}); }
  uint64_t Next(uint64_t at, uint64_t flip) const;
  void Mark(uint64_t first, uint64_t count, bool free);

  std::vector<uint64_t> free_;  // a bit a unit
  uint64_t units_ = 0;
  uint64_t free_units_ = 0;
  uint64_t cursor_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_SPACE_MAP_H_
