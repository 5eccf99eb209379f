// Median and its 95% interval, without assumptions about the distribution.
#ifndef KVASIR_BENCH_STATISTICS_H_
#define KVASIR_BENCH_STATISTICS_H_

#include <vector>

namespace kvasir::bench {

struct MedianInterval {
  double median = 0.0;
  double low = 0.0;  // with at least 95% confidence the true median lies in [low, high]
  double high = 0.0;
};

// Order statistics: the ranks between which a fair coin's count of heads falls with 95%. Fewer than
// 6 samples give the whole range, which covers less. REQUIRES: samples is not empty.
// Cost: a sort. Source: Conover, Practical Nonparametric Statistics, section 3.2.
MedianInterval MedianOf(std::vector<double> samples);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_STATISTICS_H_
