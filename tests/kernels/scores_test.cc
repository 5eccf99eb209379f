// Scores of keys on every target against the plain code; pooling and selection of scores.
#include "kernels/scores.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "keys.h"

namespace kvasir::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(DotRowsTest, RandomShapesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 150; ++round) {
      SCOPED_TRACE(round);
      const KeyShape shape = RandomKeyShape(random, 9);
      const Keys keys = MakeKeys(shape, Pick(random, 0, 5), random);
      const auto q = RandomFloats(random, size_t{shape.kv_heads} * shape.dim);
      std::vector<float> got(keys.rows, -1.0F), want(keys.rows);
      DotRows(shape, q.data(), keys.runs, got.data());
      scalar::DotRows(shape, q.data(), keys.runs, want.data());
      // Sums of up to 1,152 products of normal values.
      ExpectClose(got, want, 5e-5F);
    }
  });
}

TEST(DotRowsTest, SumsHeadsOfOneRow) {
  ForEachTarget([] {
    const KeyShape shape = {.type = RowType::kF32, .kv_heads = 2, .dim = 16};
    std::vector<float> key(32, 1.0F), q(32, 2.0F);
    std::fill(key.begin() + 16, key.end(), -0.25F);
    const KeyRun run = {.k = reinterpret_cast<const std::byte*>(key.data()), .rows = 1};
    float out = 0;
    DotRows(shape, q.data(), {&run, 1}, &out);
    EXPECT_EQ(out, 16 * 2.0F - 16 * 0.5F);
  });
}

TEST(DotRowsTest, WhatIsNotFiniteStaysSoInItsRowAlone) {
  ForEachTarget([] {
    std::mt19937 random(2);
    const KeyShape shape = {.type = RowType::kF16, .kv_heads = 3, .dim = 24};
    Keys keys = MakeKeys(shape, 3, random);
    ASSERT_GT(keys.rows, 10U);
    StoreElement(shape.type, keys.Row(4), 70, std::nanf(""));
    StoreElement(shape.type, keys.Row(7), 0, -kInfinity);
    const std::vector<float> q(72, 1.0F);
    std::vector<float> got(keys.rows);
    DotRows(shape, q.data(), keys.runs, got.data());
    for (uint32_t row = 0; row < keys.rows; ++row) {
      EXPECT_EQ(std::isnan(got[row]), row == 4) << row;
      EXPECT_EQ(std::isinf(got[row]), row == 7) << row;
    }
  });
}

TEST(KeyNormScoresTest, RandomShapesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(3);
    for (int round = 0; round < 100; ++round) {
      SCOPED_TRACE(round);
      const KeyShape shape = RandomKeyShape(random, 1);
      const Keys keys = MakeKeys(shape, Pick(random, 0, 5), random);
      std::vector<float> got(keys.rows, 1.0F), want(keys.rows);
      KeyNormScores(shape, keys.runs, got.data());
      scalar::KeyNormScores(shape, keys.runs, want.data());
      ExpectClose(got, want, 2e-6F);
    }
  });
}

TEST(KeyDifferenceScoresTest, RandomShapesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(4);
    for (int round = 0; round < 100; ++round) {
      SCOPED_TRACE(round);
      const KeyShape shape = RandomKeyShape(random, 1);
      Keys keys = MakeKeys(shape, Pick(random, 0, 5), random);
      // A key of zeros has no direction: its cosine is 0.
      for (uint32_t dim = 0; keys.rows > 3 && dim < shape.dim; ++dim) {
        StoreElement(shape.type, keys.Row(2), dim, 0.0F);
      }
      std::vector<float> got(keys.rows, 2.0F), want(keys.rows);
      KeyDifferenceScores(shape, keys.runs, got.data());
      scalar::KeyDifferenceScores(shape, keys.runs, want.data());
      ExpectClose(got, want, 1e-5F);
      if (keys.rows > 3) {
        EXPECT_EQ(got[2], 0.0F);
      }
    }
  });
}

TEST(KeyDifferenceScoresTest, ManyKeysStayExact) {
  ForEachTarget([] {
    std::mt19937 random(5);
    constexpr uint32_t kRows = 20000;
    constexpr uint32_t kDim = 32;
    std::vector<float> keys = RandomFloats(random, size_t{kRows} * kDim);
    for (size_t row = 0; row < kRows; ++row) {
      keys[row * kDim] += 1.0F;  // so that the mean is not near zero
    }
    std::vector<double> anchor(kDim);
    std::vector<double> norms(kRows);
    for (size_t row = 0; row < kRows; ++row) {
      const float* key = keys.data() + row * kDim;
      norms[row] = std::sqrt(std::inner_product(key, key + kDim, key, 0.0));
      for (size_t dim = 0; dim < kDim; ++dim) {
        anchor[dim] += double{key[dim]} / norms[row] / kRows;
      }
    }
    const double length =
        std::sqrt(std::inner_product(anchor.begin(), anchor.end(), anchor.begin(), 0.0));
    const KeyRun run = {
        .k = reinterpret_cast<const std::byte*>(keys.data()), .stride = kDim * 4, .rows = kRows};
    std::vector<float> got(kRows);
    KeyDifferenceScores({.type = RowType::kF32, .dim = kDim}, {&run, 1}, got.data());
    for (size_t row = 0; row < kRows; ++row) {
      const double dot =
          std::inner_product(anchor.begin(), anchor.end(), keys.data() + row * kDim, 0.0);
      ASSERT_NEAR(got[row], -dot / norms[row] / length, 2e-5) << row;
    }
  });
}

TEST(PoolScoresTest, KnownResults) {
  ForEachTarget([] {
    const std::vector<float> in = {3, 6, -9, 12};
    std::vector<float> out(4);
    PoolScores(in, 3, Pooling::kAverage, out);
    EXPECT_EQ(out, (std::vector<float>{3, 0, 3, 1}));
    PoolScores(in, 3, Pooling::kMaximum, out);
    EXPECT_EQ(out, (std::vector<float>{6, 6, 12, 12}));
    PoolScores(in, 9, Pooling::kAverage, out);
    EXPECT_EQ(out, std::vector<float>(4, 12.0F / 9.0F));
    PoolScores(std::vector<float>{-7}, 5, Pooling::kMaximum, {out.data(), 1});
    EXPECT_EQ(out[0], -7);
  });
}

TEST(PoolScoresTest, SameBitsAsThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(6);
    for (int round = 0; round < 400; ++round) {
      SCOPED_TRACE(round);
      const uint32_t kernel = Pick(random, 0, 20) * 2 + 1;
      auto in = RandomFloats(random, Pick(random, 0, round % 2 == 0 ? 30 : 300));
      for (size_t special = 0; in.size() > 3 && special < 2; ++special) {
        in[Pick(random, 0, static_cast<uint32_t>(in.size()) - 1)] =
            round % 3 == 0 ? kInfinity : -0.0F;
      }
      for (const Pooling pooling : {Pooling::kAverage, Pooling::kMaximum}) {
        // One guard behind the end.
        std::vector<float> got(in.size() + 1, 77.0F), want(in.size());
        PoolScores(in, kernel, pooling, {got.data(), in.size()});
        scalar::PoolScores(in, kernel, pooling, want);
        EXPECT_EQ(got.back(), 77.0F);
        got.pop_back();
        ASSERT_EQ(got, want);
      }
    }
  });
}

TEST(TopKTest, RandomScoresAgreeWithASort) {
  std::mt19937 random(7);
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE(round);
    auto scores = RandomFloats(random, Pick(random, 0, round % 10 == 0 ? 5000 : 60));
    if (round % 2 == 0) {  // many ties, both zeros among them
      std::transform(scores.begin(), scores.end(), scores.begin(),
                     [](float score) { return std::round(score * 2) / 4; });
    }
    for (float& score : scores) {
      if (Pick(random, 0, 40) == 0) {
        score = round % 3 == 0 ? kInfinity : -kInfinity;
      }
    }
    const auto size = static_cast<uint32_t>(scores.size());
    for (const uint64_t k : {0U, Pick(random, 0, size), Pick(random, 0, size), size}) {
      ASSERT_EQ(TopK(scores, k), scalar::TopK(scores, k));
    }
  }
}

TEST(TopKTest, TiesGoToTheLowerIndex) {
  EXPECT_EQ(TopK(std::vector<float>{1, 2, 2, 2, 0}, 2), (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(TopK(std::vector<float>(100, 4.5F), 3), (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_EQ(TopK(std::vector<float>{-0.0F, 0.0F, -1, 0.0F}, 2), (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(TopK(std::vector<float>{0.0F, -0.0F, -0.0F, 1}, 2), (std::vector<uint32_t>{0, 3}));
  const float least = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(TopK(std::vector<float>{0, -least, least, -kInfinity}, 2),
            (std::vector<uint32_t>{0, 2}));
  EXPECT_EQ(TopK(std::vector<float>{-kInfinity, -kInfinity, -3}, 2), (std::vector<uint32_t>{0, 2}));
}

// Scores that differ in the last bits alone, in both orders: all digits of the selection matter.
TEST(TopKTest, NeighbouringFloatsAreToldApart) {
  std::vector<float> rising(4096);
  for (uint32_t i = 0; i < rising.size(); ++i) {
    rising[i] = std::bit_cast<float>(0x3F8003FFU + i);
  }
  std::vector<uint32_t> last(1000);
  std::iota(last.begin(), last.end(), 3096U);
  EXPECT_EQ(TopK(rising, 1000), last);
  std::vector<float> falling(rising.rbegin(), rising.rend());
  std::iota(last.begin(), last.end(), 0U);
  EXPECT_EQ(TopK(falling, 1000), last);
  std::transform(falling.begin(), falling.end(), falling.begin(), std::negate<>());
  std::iota(last.begin(), last.end(), 3096U);
  EXPECT_EQ(TopK(falling, 1000), last);
}

}  // namespace
}  // namespace kvasir::kernels
