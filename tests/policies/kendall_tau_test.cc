// KendallTau: worked by hand, and against the definition on random pairs.
#include "policies/preemption/kendall_tau.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir::preemption {
namespace {

TEST(KendallTauTest, OrdersThatAgreeAndDisagree) {
  const Foretold same[] = {{1, 10}, {2, 20}, {3, 30}, {4, 35}};
  EXPECT_EQ(KendallTau(same), 1.0);
  const Foretold opposite[] = {{1, 4}, {2, 3}, {3, 2}, {4, 1}};
  EXPECT_EQ(KendallTau(opposite), -1.0);
  // Of six pairs five stand the right way round.
  const Foretold one_off[] = {{1, 1}, {2, 3}, {3, 2}, {4, 4}};
  EXPECT_DOUBLE_EQ(*KendallTau(one_off), 4.0 / 6);
}

TEST(KendallTauTest, TiesAreNeitherRightNorWrong) {
  // Of six pairs one is tied on the left: five agree of sqrt(5 * 6).
  const Foretold tied[] = {{1, 1}, {1, 2}, {2, 3}, {3, 4}};
  EXPECT_DOUBLE_EQ(*KendallTau(tied), 5.0 / std::sqrt(30.0));
}

TEST(KendallTauTest, WithoutAnOrderThereIsNone) {
  EXPECT_FALSE(KendallTau({}).has_value());
  const Foretold one[] = {{1, 1}};
  EXPECT_FALSE(KendallTau(one).has_value());
  const Foretold equal[] = {{5, 1}, {5, 2}, {5, 3}};
  EXPECT_FALSE(KendallTau(equal).has_value());
}

double BySight(const std::vector<Foretold>& pairs) {
  double agreement = 0, predicted = 0, actual = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const auto sign = [](uint64_t a, uint64_t b) { return a < b ? -1 : a > b ? 1 : 0; };
      const int p = sign(pairs[i].predicted, pairs[j].predicted);
      const int a = sign(pairs[i].actual, pairs[j].actual);
      agreement += p * a;
      predicted += p * p;
      actual += a * a;
    }
  }
  return agreement / std::sqrt(predicted) / std::sqrt(actual);
}

TEST(KendallTauTest, IsWhatTheDefinitionSays) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Foretold> pairs(2 + random() % 60);
    for (Foretold& one : pairs) one = {random() % 20, random() % 20};
    const std::optional<double> tau = KendallTau(pairs);
    if (!tau) continue;
    EXPECT_NEAR(*tau, BySight(pairs), 1e-12);
  }
}

}  // namespace
}  // namespace kvasir::preemption
