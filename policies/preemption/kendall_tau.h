// Kendall's tau-b: how well one order foretells another (M. G. Kendall, The treatment of ties in
// ranking problems, Biometrika 33, 1945). How good the hints of engines are.
//
// Pure. Thread-safe.
#ifndef KVASIR_POLICIES_PREEMPTION_KENDALL_TAU_H_
#define KVASIR_POLICIES_PREEMPTION_KENDALL_TAU_H_

#include <cstdint>
#include <optional>
#include <span>

namespace kvasir::preemption {

struct Foretold {
  uint64_t predicted = 0;
  uint64_t actual = 0;
};

// 1: the same order, -1: the opposite one, about 0: nothing to do with each other. Nothing where
// there are no two pairs, or where one side is the same for all. Cost: O(n log n) time, O(n) memory
// (W. R. Knight, A computer method for calculating Kendall's tau with ungrouped data, 1966).
std::optional<double> KendallTau(std::span<const Foretold> pairs);

}  // namespace kvasir::preemption

#endif  // KVASIR_POLICIES_PREEMPTION_KENDALL_TAU_H_
