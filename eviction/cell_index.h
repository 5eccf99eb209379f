// What it is worth to keep a block of a level and an age: expected hits for room and time.
//
// For each level and age bucket, the largest ratio of expected returns to expected room x time over
// all ages at which one could give up: a Gittins index, as for a bandit whose arm is "wait for it".
// Below the peak of returns an index may rise with age, so blocks about to return are kept over
// fresh ones of a bad kind; behind the peak it never does. Cells, a level and a bucket each, are
// ordered by it: first the one to evict from; among equals the older bucket, then the lower level.
//
// Thread-compatible. Cost: Relearn() is 20 x 36 x 36 / 2 steps and a sort of 720. Source: Gittins,
// "Bandit processes and dynamic allocation indices", J. Royal Statistical Society B 41 (1979).
#ifndef KVASIR_EVICTION_CELL_INDEX_H_
#define KVASIR_EVICTION_CELL_INDEX_H_

#include <array>
#include <cstdint>

#include "eviction/hazard_statistics.h"
#include "eviction/tail.h"

namespace kvasir::eviction {

inline constexpr uint32_t kCells = kLevels * kBuckets;

inline constexpr uint32_t CellOf(uint32_t level, uint32_t bucket) {
  return level * kBuckets + bucket;
}

class CellIndex {
 public:
  void Relearn(const HazardStatistics& statistics);

  double Index(uint32_t cell) const { return index_[cell]; }
  // 0: evict from here first.
  uint32_t RankOf(uint32_t cell) const { return rank_[cell]; }
  uint32_t CellAt(uint32_t rank) const { return order_[rank]; }

 private:
  std::array<double, kCells> index_{};
  std::array<uint16_t, kCells> rank_{};
  std::array<uint16_t, kCells> order_{};
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_CELL_INDEX_H_
