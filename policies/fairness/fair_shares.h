// FairShares: how the bytes of a pool are divided among tenants that want more than there is.
//
// Weighted max-min fairness with guaranteed minima (Bertsekas and Gallager, Data Networks, 6.5.2;
// the minima as in hierarchical resource allocation): a tenant's reservation comes first, as far
// as it wants it; what is left rises for all alike, by weight, until a tenant has what it wants or
// may have. So nobody gets more than it wants, and a share can only be made larger by making
// smaller that of one who has less for its weight.
//
// Pure: no clock, no state. Thread-safe.
#ifndef KVASIR_POLICIES_FAIRNESS_FAIR_SHARES_H_
#define KVASIR_POLICIES_FAIRNESS_FAIR_SHARES_H_

#include <cstdint>
#include <span>
#include <vector>

namespace kvasir::fairness {

inline constexpr uint32_t kWeightMax = 10'000;

// What one tenant may have, and wants. Bytes.
struct Claim {
  uint64_t reserved = 0;  // always its own, as far as it wants it
  uint64_t limit = 0;     // never more
  uint32_t weight = 1;    // 1 to kWeightMax
  uint64_t wanted = 0;    // what it has and what it asks for
};

// A share for each claim, in the same order: between min(reserved, limit, wanted) and min(limit,
// wanted), together min(capacity, all that may be had). Where the reservations are more than the
// capacity (a pool that was made smaller), each gets a part of it in proportion to its own. Exact
// to the byte and the same on every machine: what does not divide goes to those in front. Cost:
// O(n log n).
std::vector<uint64_t> FairShares(uint64_t capacity, std::span<const Claim> claims);

}  // namespace kvasir::fairness

#endif  // KVASIR_POLICIES_FAIRNESS_FAIR_SHARES_H_
