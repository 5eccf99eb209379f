// TopK by radix selection: the k-th largest score is found 11 bits at a time, each time among the
// scores that agree with it so far. No order of the input makes it slow.
#include <algorithm>
#include <array>
#include <numeric>

#include "base/check.h"
#include "kernels/score_order.h"
#include "kernels/scores.h"

namespace kvasir::kernels {
namespace {

constexpr uint32_t kDigitBits = 11;

// The `rank`-th largest (from 1) of what `candidates` holds. Leaves in `rank` how many of the
// scores equal to it belong to the largest.
uint32_t Select(std::vector<uint32_t>& candidates, uint64_t& rank) {
  for (uint32_t shift = 32; shift > 0;) {
    const uint32_t width = std::min(shift, kDigitBits);
    shift -= width;
    const uint32_t mask = (1U << width) - 1;
    std::array<uint32_t, 1U << kDigitBits> counts = {};
    for (const uint32_t order : candidates) {
      ++counts[(order >> shift) & mask];
    }
    uint32_t digit = mask;
    while (counts[digit] < rank) {
      rank -= counts[digit--];
    }
    std::erase_if(candidates, [&](uint32_t order) { return ((order >> shift) & mask) != digit; });
  }
  return candidates.front();
}

}  // namespace

std::vector<uint32_t> TopK(std::span<const float> scores, uint64_t k) {
  KVASIR_CHECK(k <= scores.size(), "the top {} of {} scores", k, scores.size());
  std::vector<uint32_t> top(k);
  if (k == scores.size()) {
    std::iota(top.begin(), top.end(), 0U);
    return top;
  }
  if (k == 0) {
    return top;
  }
  std::vector<uint32_t> candidates(scores.size());
  std::transform(scores.begin(), scores.end(), candidates.begin(), OrderOf);
  uint64_t ties = k;
  const uint32_t least = Select(candidates, ties);
  size_t found = 0;
  for (size_t i = 0; found < k; ++i) {
    const uint32_t order = OrderOf(scores[i]);
    if (order > least || (order == least && ties > 0)) {
      ties -= order == least ? 1 : 0;
      top[found++] = static_cast<uint32_t>(i);
    }
  }
  return top;
}

}  // namespace kvasir::kernels
