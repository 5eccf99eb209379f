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
  // term: probability of exactly `below` heads in n throws.
  double term = std::pow(0.5, static_cast<double>(n));
  double tail = term;
  size_t below = 0;
  while (below + 1 < (n + 1) / 2) {
    const double next = term * static_cast<double>(n - below) / static_cast<double>(below + 1);
    if (tail + next > kTail) break;
    term = next;
    tail += next;
    ++below;
  }
  const double low = samples[tail <= kTail ? below : 0];
  const double high = samples[n - 1 - (tail <= kTail ? below : 0)];
  return {.median = (samples[(n - 1) / 2] + samples[n / 2]) / 2, .low = low, .high = high};
}

}  // namespace kvasir::bench
