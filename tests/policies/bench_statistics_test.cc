// Medians and their intervals by order statistics.
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "bench/statistics.h"

namespace kvasir::bench {
namespace {

// 1 to n, from the top down.
std::vector<double> Countdown(int n) {
  std::vector<double> values(static_cast<size_t>(n));
  std::iota(values.rbegin(), values.rend(), 1.0);
  return values;
}

TEST(MedianOf, RanksOfTheTables) {
  // Ranks of the 95% interval in the tables of the sign test: the 6th of 20, the 14th of 40.
  const MedianInterval twenty = MedianOf(Countdown(20));
  EXPECT_EQ(twenty.median, 10.5);
  EXPECT_EQ(twenty.low, 6);
  EXPECT_EQ(twenty.high, 15);
  const MedianInterval forty = MedianOf(Countdown(40));
  EXPECT_EQ(forty.low, 14);
  EXPECT_EQ(forty.high, 27);
  const MedianInterval six = MedianOf(Countdown(6));
  EXPECT_EQ(six.low, 1);
  EXPECT_EQ(six.high, 6);
}

TEST(MedianOf, FewSamples) {
  const MedianInterval one = MedianOf({7});
  EXPECT_EQ(one.median, 7);
  EXPECT_EQ(one.low, 7);
  EXPECT_EQ(one.high, 7);
  const MedianInterval five = MedianOf(Countdown(5));
  EXPECT_EQ(five.median, 3);
  EXPECT_EQ(five.low, 1);
  EXPECT_EQ(five.high, 5);
}

TEST(MedianOf, ManySamplesAreNarrow) {
  const MedianInterval many = MedianOf(Countdown(9999));  // half a width: 1.96 * sqrt(n) / 2
  EXPECT_EQ(many.median, 5000);
  EXPECT_NEAR(many.low, 5000 - 98, 1);
  EXPECT_NEAR(many.high, 5000 + 98, 1);
}

}  // namespace
}  // namespace kvasir::bench
