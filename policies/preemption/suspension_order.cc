#include "policies/preemption/suspension_order.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace kvasir::preemption {

uint64_t RemainingRows(uint64_t predicted_rows, uint64_t response_rows) {
  uint64_t rows = std::clamp<uint64_t>(predicted_rows, 1, kPredictedRowsMax);
  const uint64_t so_far = std::min(response_rows, kPredictedRowsMax);
  while (rows <= so_far) rows *= 2;
  return rows - so_far;
}

std::vector<size_t> SuspensionOrder(std::span<const Candidate> candidates, const Rules& rules) {
  std::vector<uint32_t> ranks;
  for (const Candidate& one : candidates) {
    if (one.hints.predicted_rank) ranks.push_back(*one.hints.predicted_rank);
  }
  std::sort(ranks.begin(), ranks.end());
  const uint64_t typical = std::clamp<uint64_t>(rules.typical_rows, 1, kPredictedRowsMax / 2);
  const auto predicted_of = [&](const Hints& hints) {
    if (hints.predicted_rows) return *hints.predicted_rows;
    if (!hints.predicted_rank) return typical;
    const auto place = static_cast<uint64_t>(
        std::lower_bound(ranks.begin(), ranks.end(), *hints.predicted_rank) - ranks.begin());
    return 2 * typical * (2 * place + 1) / (2 * ranks.size());
  };
  struct Key {
    bool starving;
    uint64_t age;  // of a starving one
    int32_t priority;
    uint64_t remaining, opened;
  };
  std::vector<Key> keys;
  keys.reserve(candidates.size());
  for (const Candidate& one : candidates) {
    const bool starving = one.age_ms >= rules.starving_after_ms;
    keys.push_back({starving, starving ? one.age_ms : 0, one.hints.priority,
                    RemainingRows(predicted_of(one.hints), one.response_rows), one.opened});
  }
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const Key &x = keys[a], &y = keys[b];
    return std::tie(x.starving, x.age, x.priority, y.remaining, y.opened) <
           std::tie(y.starving, y.age, y.priority, x.remaining, x.opened);
  });
  return order;
}

}  // namespace kvasir::preemption
