// The tables of angles against cos and sin in double.
#include "kernels/rope_angles.h"

#include <cmath>

#include <gtest/gtest.h>

namespace kvasir::kernels {
namespace {

void PlainProduct(const float* a, const float* b, size_t pairs, float* to) {
  for (size_t pair = 0; pair < pairs; ++pair) {
    to[pair] = a[pair] * b[pair] - a[pairs + pair] * b[pairs + pair];
    to[pairs + pair] = a[pair] * b[pairs + pair] + a[pairs + pair] * b[pair];
  }
}

TEST(RopeAnglesTest, ProductsOfTheTablesAreTheAngles) {
  RopeAngles angles;
  for (const double theta : {10000.0, 500000.0, 10000.0}) {
    angles.Use(theta, 64);
    for (const int64_t delta : {0, 1, -1, 31, 32, -32, 8191, 8192, -8192, 0, 65535, -70000, 2097152,
                                1, 4000003, -4000003}) {
      const RopeAngles::Turn turn = angles.Of(delta, PlainProduct);
      for (size_t pair = 0; pair < 32; ++pair) {
        const double angle =
            static_cast<double>(delta) * std::pow(theta, -static_cast<double>(pair) / 32.0);
        const float cosine =
            turn.high[pair] * turn.low[pair] - turn.high[32 + pair] * turn.low[32 + pair];
        const float sine =
            turn.high[pair] * turn.low[32 + pair] + turn.high[32 + pair] * turn.low[pair];
        ASSERT_NEAR(cosine, std::cos(angle), 3e-7) << delta;
        ASSERT_NEAR(sine, std::sin(angle), 3e-7) << delta;
      }
    }
  }
}

// Interleaving every four entries with themselves, as one instruction does with 128 bits, gives
// each pair twice and in order.
TEST(RopeAnglesTest, OrderOfLanesIsUndoneByInterleaving) {
  for (const size_t lanes : {4U, 8U, 16U}) {
    const RopeOrder order = {.lanes = lanes};
    const size_t pairs = 2 * lanes + 3;
    std::vector<size_t> entry(pairs);
    for (size_t pair = 0; pair < pairs; ++pair) {
      entry[order.At(pair, pairs)] = pair;
    }
    for (size_t whole = 0; whole < 2 * lanes; whole += lanes) {
      std::vector<size_t> low, high;
      for (size_t four = whole; four < whole + lanes; four += 4) {
        low.insert(low.end(), {entry[four], entry[four], entry[four + 1], entry[four + 1]});
        high.insert(high.end(),
                    {entry[four + 2], entry[four + 2], entry[four + 3], entry[four + 3]});
      }
      for (size_t lane = 0; lane < lanes; ++lane) {
        EXPECT_EQ(low[lane], whole + lane / 2);
        EXPECT_EQ(high[lane], whole + lanes / 2 + lane / 2);
      }
    }
    for (size_t pair = 2 * lanes; pair < pairs; ++pair) {
      EXPECT_EQ(entry[pair], pair);
    }
  }
}

TEST(RopeAnglesTest, AnotherOrderMakesTheEntriesAnew) {
  RopeAngles angles;
  constexpr size_t kPairs = 19;
  constexpr int64_t kDelta = -8200;
  for (const size_t lanes : {1U, 8U, 16U, 1U}) {
    const RopeOrder order = {.lanes = lanes};
    angles.Use(10000.0, 2 * kPairs, order);
    const RopeAngles::Turn turn = angles.Of(kDelta, PlainProduct);
    for (size_t pair = 0; pair < kPairs; ++pair) {
      const size_t at = order.At(pair, kPairs);
      const double angle =
          static_cast<double>(kDelta) * std::pow(10000.0, -static_cast<double>(pair) / kPairs);
      const float sine =
          turn.high[at] * turn.low[kPairs + at] + turn.high[kPairs + at] * turn.low[at];
      ASSERT_NEAR(sine, std::sin(angle), 3e-7) << lanes << " " << pair;
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels
