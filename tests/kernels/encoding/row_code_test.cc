// Rows coded one by one: bytes by hand, errors, and sums of every target.
#include "kernels/encoding/row_code.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>

#include "base/error.h"
#include "tests/kernels/encoding/record_cases.h"
#include "tests/kernels/targets.h"

namespace kvasir::kernels {
namespace {

using test::Pick;
using test::Randoms;

RotatedRow RandomRow(std::mt19937& random) {
  return {.dims = 16U << Pick(random, 0, 4), .bits = Pick(random, 2, 3)};
}

// Mean square of the difference over that of the row.
double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{got[i]} - double{want[i]}, 2);
    size += std::pow(double{want[i]}, 2);
  }
  return error / size;
}

TEST(RotatedRowTest, WhatIsOutOfBoundsIsNamed) {
  EXPECT_TRUE(CheckRotatedRow({.dims = 16, .bits = 3}).ok());
  EXPECT_TRUE(CheckRotatedRow({.dims = 256, .bits = 2}).ok());
  const std::pair<RotatedRow, const char*> cases[] = {
      {{.dims = 8}, "dims=8 min=16 max=256"},     {{.dims = 96}, "dims=96 min=16 max=256"},
      {{.dims = 512}, "dims=512 min=16 max=256"}, {{.dims = 0}, "dims=0 min=16 max=256"},
      {{.bits = 1}, "bits=1 min=2 max=3"},        {{.bits = 4}, "bits=4 min=2 max=3"}};
  for (const auto& [shape, text] : cases) {
    const absl::Status status = CheckRotatedRow(shape);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(MessageOf(status).find(text), std::string::npos) << MessageOf(status);
  }
}

// One channel alone becomes a column of the matrix: every code is one of the two middle levels or
// of their neighbours, by the sign of the matrix alone.
TEST(RotatedRowTest, GoldenBytes) {
  std::vector<float> row(16, 0.0F);
  row[1] = 4;  // sign of channel 1 is -1; rms 1
  std::byte code[1 + 16 * 2 / 8];
  ASSERT_EQ(RotatedRowBytes({.dims = 16, .bits = 2}), sizeof code);
  EncodeRotatedRow({.dims = 16, .bits = 2}, row.data(), code);
  // Turned: -1 at even channels, 1 at odd ones; 1 is above (0.45 + 1.51) / 2.
  EXPECT_EQ(std::to_integer<int>(code[0]), 128);
  EXPECT_EQ(std::to_integer<int>(code[1]), 0xAA);
  EXPECT_EQ(std::to_integer<int>(code[2]), 0xAA);
  EXPECT_EQ(std::to_integer<int>(code[3]), 0xAA);
  EXPECT_EQ(std::to_integer<int>(code[4]), 0xAA);
  std::vector<float> got(16);
  DecodeRotatedRow({.dims = 16, .bits = 2}, code, got.data());
  row[1] = 4 * 1.510418F;
  for (size_t dim = 0; dim < 16; ++dim) {
    EXPECT_NEAR(got[dim], row[dim], 1e-5) << dim;
  }
}

// Normal rows, and rows with one large element, which the rotation spreads: the error is that of
// the code book, 0.1175 and 0.03454 of the variance, and what the norm's step of 4.4% adds.
TEST(RotatedRowTest, ErrorIsThatOfTheCodeBook) {
  std::mt19937 random(1);
  for (const uint32_t bits : {2U, 3U}) {
    for (const float outlier : {0.0F, 8.0F}) {
      const RotatedRow shape = {.dims = 128, .bits = bits};
      std::vector<float> all, decoded;
      for (int i = 0; i < 300; ++i) {
        std::vector<float> row = Randoms(shape.dims, random);
        row[Pick(random, 0, 127)] += outlier;
        const float size = std::exp2(static_cast<float>(Pick(random, 0, 8)) - 4);
        std::vector<std::byte> code(RotatedRowBytes(shape));
        std::vector<float> got(shape.dims);
        std::transform(row.begin(), row.end(), row.begin(), [&](float x) { return x * size; });
        EncodeRotatedRow(shape, row.data(), code.data());
        DecodeRotatedRow(shape, code.data(), got.data());
        std::transform(row.begin(), row.end(), row.begin(), [&](float x) { return x / size; });
        std::transform(got.begin(), got.end(), got.begin(), [&](float x) { return x / size; });
        all.insert(all.end(), row.begin(), row.end());
        decoded.insert(decoded.end(), got.begin(), got.end());
      }
      const double book = bits == 2 ? 0.1175 : 0.03454;
      EXPECT_LT(RelativeError(decoded, all), book * 1.06) << bits << ' ' << outlier;
      EXPECT_GT(RelativeError(decoded, all), book * 0.9) << bits << ' ' << outlier;
    }
  }
}

TEST(RotatedRowTest, RowsOfAnyNumbers) {
  std::mt19937 random(2);
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity(), 1e-44F, 3e38F};
  for (int round = 0; round < 50; ++round) {
    const RotatedRow shape = RandomRow(random);
    std::vector<float> row(shape.dims, 0.0F);
    test::Guarded code(RotatedRowBytes(shape));
    EncodeRotatedRow(shape, row.data(), code.data());
    DecodeRotatedRow(shape, code.data(), row.data());
    EXPECT_EQ(std::count(row.begin(), row.end(), 0.0F), static_cast<ptrdiff_t>(shape.dims));
    for (const float x : bad) {
      row[Pick(random, 0, shape.dims - 1)] = x;
    }
    EncodeRotatedRow(shape, row.data(), code.data());
    DecodeRotatedRow(shape, code.data(), row.data());
    EXPECT_TRUE(std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); }));
  }
}

// Rows at odd addresses of memory that ends with each of them.
TEST(RotatedRowTest, SumsAreThoseOfTheDecodedRows) {
  ForEachTarget([] {
    std::mt19937 random(3);
    for (int round = 0; round < 60; ++round) {
      SCOPED_TRACE(round);
      const RotatedRow shape = RandomRow(random);
      const uint32_t count = Pick(random, 0, 3) == 0 ? Pick(random, 60, 150) : Pick(random, 0, 20);
      const uint32_t queries = Pick(random, 1, 9);
      std::vector<std::unique_ptr<test::Guarded>> codes;
      std::vector<const std::byte*> rows;
      std::vector<float> decoded;
      for (uint32_t i = 0; i < count; ++i) {
        codes.push_back(std::make_unique<test::Guarded>(RotatedRowBytes(shape)));
        EncodeRotatedRow(shape, Randoms(shape.dims, random).data(), codes.back()->data());
        rows.push_back(codes.back()->data());
        std::vector<float> row(shape.dims, 0.0F);
        const float one = 1;
        scalar::AddRotatedRows(shape, {&rows.back(), 1}, &one, 1, row.data());
        decoded.insert(decoded.end(), row.begin(), row.end());
      }
      const std::vector<float> weights = Randoms(size_t{queries} * count, random);
      std::vector<float> sums(size_t{queries} * shape.dims, 0.5F);
      AddRotatedRows(shape, rows, weights.data(), queries, sums.data());
      for (size_t query = 0; query < queries; ++query) {
        for (size_t dim = 0; dim < shape.dims; ++dim) {
          double want = 0.5;
          for (size_t row = 0; row < count; ++row) {
            want += double{weights[query * count + row]} * double{decoded[row * shape.dims + dim]};
          }
          ASSERT_NEAR(sums[query * shape.dims + dim], want, 1e-3) << query << ' ' << dim;
        }
      }
    }
  });
}

}  // namespace
}  // namespace kvasir::kernels
