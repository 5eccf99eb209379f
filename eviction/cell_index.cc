#include "eviction/cell_index.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

namespace kvasir::eviction {
namespace {

constexpr double kTrunkHazard = 30;  // how much likelier a trunk returns than a score of 0
constexpr double kReturnMax = 0.98;  // of a bucket: nothing is certain

// Of all spans of buckets from b on, the best ratio of returns to time in room.
double BestRatio(std::span<const double, kBuckets> returns, uint32_t b) {
  const auto& edges = EdgesInSeconds();
  double best = 0, still_idle = 1, hits = 0, time = 0;
  for (uint32_t j = b; j < kBuckets; ++j) {
    hits += still_idle * returns[j];
    time += still_idle * (edges[j + 1] - edges[j]) * (1 - returns[j] / 2);
    best = std::max(best, hits / time);
    still_idle *= 1 - returns[j];
  }
  return best;
}

// Makes `values` non-increasing: runs that rise get their mean (pool adjacent violators).
void PoolAdjacent(std::span<double> values) {
  std::array<double, kBuckets> sum;
  std::array<uint32_t, kBuckets> count;
  size_t pools = 0;
  for (const double value : values) {
    sum[pools] = value;
    count[pools++] = 1;
    while (pools > 1 && sum[pools - 2] * count[pools - 1] < sum[pools - 1] * count[pools - 2]) {
      sum[pools - 2] += sum[pools - 1];
      count[pools - 2] += count[pools - 1];
      --pools;
    }
  }
  size_t at = 0;
  for (size_t pool = 0; pool < pools; ++pool) {
    for (uint32_t i = 0; i < count[pool]; ++i) values[at++] = sum[pool] / count[pool];
  }
}

}  // namespace

void CellIndex::Relearn(const HazardStatistics& statistics) {
  const auto& edges = EdgesInSeconds();
  for (uint32_t level = 0; level < kLevels; ++level) {
    const double times =
        level == kTrunkLevel ? kTrunkHazard : std::exp(0.25 * (static_cast<double>(level) - 12));
    std::array<double, kBuckets> returns;
    for (uint32_t b = 0; b < kBuckets; ++b) {
      returns[b] = std::min(kReturnMax, times * statistics.Base(b));
    }
    const std::span<double> row(&index_[CellOf(level, 0)], kBuckets);
    uint32_t peak = 0;
    for (uint32_t b = 0; b < kBuckets; ++b) {
      row[b] = BestRatio(returns, b);
      if (edges[b] <= kPeakAgeMax && row[b] >= row[peak]) peak = b;
    }
    PoolAdjacent(row.subspan(peak));
  }
  std::iota(order_.begin(), order_.end(), uint16_t{0});
  std::sort(order_.begin(), order_.end(), [this](uint16_t a, uint16_t b) {
    if (index_[a] != index_[b]) return index_[a] < index_[b];
    if (a % kBuckets != b % kBuckets) return a % kBuckets > b % kBuckets;
    return a < b;
  });
  for (uint32_t rank = 0; rank < kCells; ++rank) rank_[order_[rank]] = static_cast<uint16_t>(rank);
}

}  // namespace kvasir::eviction
