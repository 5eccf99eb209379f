#include "bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/check.h"

namespace kvasir::bench {

MedianInterval MedianOf(std::vector<double> samples) {
  KVASIR_CHECK(!samples.empty(), "samples={}", samples.size());
  constexpr double kTail = 0.025;
  std::sort(samples.begin(), samples.end());
  const size_t n = samples.size();
  // Probability of exactly k heads in n throws.
  const auto exactly = [n](size_t k) {
    const auto all = static_cast<double>(n);
    const auto heads = static_cast<double>(k);
    return std::exp(std::lgamma(all + 1) - std::lgamma(heads + 1) - std::lgamma(all - heads + 1) -
                    all * std::log(2.0));
  };
  size_t rank = 0;  // of the lower end, from 0
  double tail = exactly(0);
  while (2 * rank + 2 < n && tail + exactly(rank + 1) <= kTail) tail += exactly(++rank);
  return {.median = (samples[(n - 1) / 2] + samples[n / 2]) / 2,
          .low = samples[rank],
          .high = samples[n - 1 - rank]};
}

}  // namespace kvasir::bench
