#include "policies/preemption/kendall_tau.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace kvasir::preemption {
namespace {

// Pairs of equal neighbours in what is sorted.
template <typename Same>
uint64_t Ties(size_t size, const Same& same) {
  uint64_t ties = 0, run = 0;
  for (size_t i = 1; i < size; ++i) {
    run = same(i - 1, i) ? run + 1 : 0;
    ties += run;
  }
  return ties;
}

// Sorts [first, last) by a merge; how many pairs stood the wrong way round.
uint64_t SortCounting(std::span<uint64_t> values, std::span<uint64_t> spare) {
  if (values.size() < 2) return 0;
  const size_t half = values.size() / 2;
  uint64_t swaps = SortCounting(values.first(half), spare.first(half)) +
                   SortCounting(values.subspan(half), spare.subspan(half));
  size_t left = 0, right = half;
  for (uint64_t& out : spare) {
    if (right == values.size() || (left < half && values[left] <= values[right])) {
      out = values[left++];
    } else {
      swaps += half - left;
      out = values[right++];
    }
  }
  std::copy(spare.begin(), spare.end(), values.begin());
  return swaps;
}

}  // namespace

std::optional<double> KendallTau(std::span<const Foretold> pairs) {
  const auto n = static_cast<uint64_t>(pairs.size());
  if (n < 2) return std::nullopt;
  std::vector<Foretold> sorted(pairs.begin(), pairs.end());
  std::sort(sorted.begin(), sorted.end(), [](const Foretold& a, const Foretold& b) {
    return a.predicted != b.predicted ? a.predicted < b.predicted : a.actual < b.actual;
  });
  const uint64_t predicted_ties =
      Ties(n, [&](size_t a, size_t b) { return sorted[a].predicted == sorted[b].predicted; });
  const uint64_t both_ties = Ties(n, [&](size_t a, size_t b) {
    return sorted[a].predicted == sorted[b].predicted && sorted[a].actual == sorted[b].actual;
  });
  std::vector<uint64_t> actual, spare(n);
  for (const Foretold& one : sorted) actual.push_back(one.actual);
  const uint64_t swaps = SortCounting(actual, spare);
  const uint64_t actual_ties = Ties(n, [&](size_t a, size_t b) { return actual[a] == actual[b]; });
  const auto all = static_cast<double>(n * (n - 1) / 2);
  const double spread_predicted = all - static_cast<double>(predicted_ties);
  const double spread_actual = all - static_cast<double>(actual_ties);
  if (spread_predicted == 0 || spread_actual == 0) return std::nullopt;
  const double agreement = all - static_cast<double>(predicted_ties) -
                           static_cast<double>(actual_ties) + static_cast<double>(both_ties) -
                           2 * static_cast<double>(swaps);
  return agreement / std::sqrt(spread_predicted * spread_actual);
}

}  // namespace kvasir::preemption
