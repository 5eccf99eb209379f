// FairShares: worked examples, then what must hold of any division.
#include "policies/fairness/fair_shares.h"

#include <algorithm>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace kvasir::fairness {
namespace {

constexpr uint64_t kAll = UINT64_MAX;
using Shares = std::vector<uint64_t>;

TEST(FairSharesTest, WithoutScarcityEverybodyHasWhatItWants) {
  const Claim claims[] = {{0, 100, 1, 30}, {50, 100, 1, 10}, {0, 20, 5, 90}};
  EXPECT_EQ(FairShares(1000, claims), Shares({30, 10, 20}));
  EXPECT_EQ(FairShares(60, claims), Shares({30, 10, 20}));
}

TEST(FairSharesTest, InOverloadWeightsDecide) {
  const Claim claims[] = {{0, kAll, 1, kAll}, {0, kAll, 2, kAll}, {0, kAll, 4, kAll}};
  EXPECT_EQ(FairShares(700, claims), Shares({100, 200, 400}));
}

// The textbook's: 10 among wants of 2, 2.6, 4 and 5 is 2, 2.6, 2.7, 2.7.
TEST(FairSharesTest, WhatOneDoesNotWantTheOthersGet) {
  const Claim claims[] = {{0, kAll, 1, 20}, {0, kAll, 1, 26}, {0, kAll, 1, 40}, {0, kAll, 1, 50}};
  EXPECT_EQ(FairShares(100, claims), Shares({20, 26, 27, 27}));
}

// And with weights 5, 8, 1, 2 of 16 among wants of 4, 2, 10, 4: 4, 2, 10/3 and 20/3 of which the
// last wants only 4, so that the third has what is left.
TEST(FairSharesTest, WhatOneDoesNotWantIsDividedByWeight) {
  const Claim claims[] = {
      {0, kAll, 5, 400}, {0, kAll, 8, 200}, {0, kAll, 1, 1000}, {0, kAll, 2, 400}};
  EXPECT_EQ(FairShares(1600, claims), Shares({400, 200, 600, 400}));
}

TEST(FairSharesTest, AReservationComesFirst) {
  const Claim claims[] = {{60, kAll, 1, kAll}, {0, kAll, 1, kAll}};
  EXPECT_EQ(FairShares(100, claims), Shares({60, 40}));
  // It is no bonus: who reserved little has as much as the others.
  const Claim small[] = {{10, kAll, 1, kAll}, {0, kAll, 1, kAll}};
  EXPECT_EQ(FairShares(100, small), Shares({50, 50}));
}

TEST(FairSharesTest, AnIdleReservationIsLent) {
  const Claim claims[] = {{80, kAll, 1, 0}, {0, kAll, 1, kAll}, {0, 30, 1, kAll}};
  EXPECT_EQ(FairShares(100, claims), Shares({0, 70, 30}));
}

TEST(FairSharesTest, ReservationsThatDoNotFitShrinkInProportion) {
  const Claim claims[] = {{60, kAll, 1, kAll}, {30, kAll, 9, kAll}, {0, kAll, 9, kAll}};
  EXPECT_EQ(FairShares(45, claims), Shares({30, 15, 0}));
}

TEST(FairSharesTest, WhatDoesNotDivideGoesToThoseInFront) {
  const Claim claims[] = {{0, kAll, 1, kAll}, {0, kAll, 1, kAll}, {0, kAll, 1, kAll}};
  EXPECT_EQ(FairShares(11, claims), Shares({4, 4, 3}));
  EXPECT_EQ(FairShares(0, claims), Shares({0, 0, 0}));
  EXPECT_EQ(FairShares(5, {}), Shares());
}

TEST(FairSharesTest, SizesOfTheLargestHosts) {
  const uint64_t pool = uint64_t{64} << 40;
  const Claim claims[] = {{pool / 2, pool, kWeightMax, pool}, {0, pool, 1, pool}};
  const Shares shares = FairShares(pool, claims);
  EXPECT_EQ(shares[0] + shares[1], pool);
  EXPECT_EQ(shares[1], pool / (kWeightMax + 1));
}

TEST(FairSharesTest, AnyDivisionIsFair) {
  std::mt19937_64 random(7);
  const auto below = [&](uint64_t n) { return random() % n; };
  for (int round = 0; round < 3000; ++round) {
    std::vector<Claim> claims(1 + below(12));
    const uint64_t unit = uint64_t{1} << below(40);
    for (Claim& claim : claims) {
      claim.reserved = below(4) == 0 ? below(20 * unit) : 0;
      claim.limit = below(5) == 0 ? below(50 * unit) : kAll;
      claim.weight = static_cast<uint32_t>(1 + below(below(2) == 0 ? 4 : kWeightMax));
      claim.wanted = below(8) == 0 ? 0 : below(60 * unit);
    }
    const uint64_t capacity = below(100 * unit);
    const Shares shares = FairShares(capacity, claims);
    ASSERT_EQ(shares.size(), claims.size());
    uint64_t given = 0, caps = 0, floors = 0;
    for (size_t i = 0; i < claims.size(); ++i) {
      const uint64_t cap = std::min(claims[i].limit, claims[i].wanted);
      floors += std::min(claims[i].reserved, cap);
      caps += cap;
      given += shares[i];
      ASSERT_LE(shares[i], cap);
    }
    ASSERT_EQ(given, std::min(capacity, caps));
    if (floors > capacity) continue;
    for (size_t i = 0; i < claims.size(); ++i) {
      const uint64_t cap = std::min(claims[i].limit, claims[i].wanted);
      ASSERT_GE(shares[i], std::min(claims[i].reserved, cap));
      if (shares[i] == cap) continue;
      // Nobody else has more for its weight, but for its reservation, or the byte that is left.
      for (size_t j = 0; j < claims.size(); ++j) {
        const uint64_t floor = std::min(claims[j].reserved, shares[j]);
        if (shares[j] == floor) continue;
        const auto own = static_cast<long double>(shares[i] + 1) / claims[i].weight;
        const auto other = static_cast<long double>(shares[j] - 1) / claims[j].weight;
        ASSERT_LE(other, own) << "round=" << round << " i=" << i << " j=" << j;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::fairness
