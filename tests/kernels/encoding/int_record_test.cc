// int8 and int4 records: bytes of every target against the plain code, bounds of errors, damaged
// records, and reads that stay inside.
#include "kernels/encoding/int_record.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "base/error.h"
#include "tests/kernels/encoding/guarded.h"
#include "tests/kernels/encoding/record_cases.h"
#include "tests/kernels/targets.h"

namespace kvasir::kernels::ints {
namespace {

using kernels::test::Pick;
using kernels::test::Randoms;

constexpr float kHalfLargest = 65504.0F;

RecordShape RandomShape(std::mt19937& random) {
  return {.codec = Pick(random, 0, 1) == 0 ? Codec::kInt8 : Codec::kInt4,
          .plane = Pick(random, 0, 1) == 0 ? RecordPlane::kKey : RecordPlane::kValue,
          .rows = Pick(random, 0, 1) == 0 ? 32U : 64U,
          .dims = 8 * Pick(random, 1, 32)};
}

// Numbers of all kinds that an encoder may be given.
enum class Kind { kNormal, kConstant, kTiny, kLarge, kOutliers, kOffset, kZeros, kCount };

float Number(Kind kind, size_t dim, std::mt19937& random) {
  std::normal_distribution<float> normal;
  const float x = normal(random);
  switch (kind) {
    case Kind::kConstant:
      return 0.1F + static_cast<float>(dim % 7);
    case Kind::kTiny:  // f16 has no such numbers, or only as denormal ones
      return x * (dim % 2 == 0 ? 1e-9F : 3e-7F);
    case Kind::kLarge:
      return std::clamp(x * 1e5F, -kHalfLargest, kHalfLargest);
    case Kind::kOutliers:
      return Pick(random, 0, 40) == 0 ? x * 3e3F : x;
    case Kind::kOffset:  // a spread far below a step of f16
      return 1000.0F + x * 1e-3F;
    case Kind::kZeros:
      return x < 0 ? -0.0F : 0.0F;
    default:
      return x;
  }
}

std::vector<float> RandomTile(const RecordShape& shape, std::mt19937& random) {
  const auto kinds = static_cast<uint32_t>(Kind::kCount);
  const auto kind = static_cast<Kind>(Pick(random, 0, kinds - 1));
  const float unread = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> tile(shape.rows * shape.dims + kTileSlack, unread);
  for (size_t i = 0; i < shape.rows * shape.dims; ++i) {
    tile[i] = Number(kind, i % shape.dims, random);
  }
  return tile;
}

// A record of a random shape, at the end of a page that nothing readable follows.
struct Encoded {
  explicit Encoded(std::mt19937& random)
      : shape(RandomShape(random)),
        count(Pick(random, 0, 3) == 0 ? Pick(random, 1, shape.rows) : shape.rows),
        tile(RandomTile(shape, random)),
        record(Bytes(shape)) {
    std::vector<float> copy = tile;
    scalar::Encode(shape, copy.data(), count, record.data());
  }
  RecordShape shape;
  size_t count;
  std::vector<float> tile;
  kernels::test::Guarded record;
};

TEST(IntRecordTest, BytesCountCodesScalesAndZeros) {
  RecordShape shape = {.codec = Codec::kInt4, .plane = RecordPlane::kKey, .rows = 64, .dims = 64};
  EXPECT_EQ(Bytes(shape), 64 * 64 / 2 + 64 * 4);
  shape.plane = RecordPlane::kValue;
  EXPECT_EQ(Bytes(shape), 64 * 64 / 2 + 64 * 4);
  shape.dims = 128;
  EXPECT_EQ(Bytes(shape), 64 * 128 / 2 + 64 * 2 * 4);
  shape.codec = Codec::kInt8;
  shape.rows = 32;
  shape.dims = 72;
  EXPECT_EQ(Bytes(shape), 32 * 72 + 32 * 2 * 4);
  shape.plane = RecordPlane::kKey;
  EXPECT_EQ(Bytes(shape), 32 * 72 + 72 * 4);
}

TEST(IntRecordTest, BytesAreThoseOfThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 400; ++round) {
      SCOPED_TRACE(round);
      Encoded want(random);
      kernels::test::Guarded got(want.record.size());
      std::vector<float> tile = want.tile;
      Encode(want.shape, tile.data(), want.count, got.data());
      ASSERT_EQ(got.Text(), want.record.Text());
    }
  });
}

// Rows of f16 in place, one behind the other or anywhere, and rows that are not for this way.
TEST(IntRecordTest, HalvesInPlaceGiveTheSameBytes) {
  ForEachTarget([] {
    std::mt19937 random(6);
    int encoded = 0;
    for (int round = 0; round < 200; ++round) {
      SCOPED_TRACE(round);
      RecordShape shape = RandomShape(random);
      const std::vector<float> numbers = RandomTile(shape, random);
      const size_t row_bytes = shape.dims * 2 + Pick(random, 0, 1);
      kernels::test::Guarded rows(row_bytes * (shape.rows - 1) + shape.dims * 2);
      std::vector<float> tile(numbers.size());
      std::vector<const std::byte*> sources;
      for (size_t row = 0; row < shape.rows; ++row) {
        std::byte* to = rows.data() + row * row_bytes;
        for (size_t dim = 0; dim < shape.dims; ++dim) {
          StoreElement(RowType::kF16, to, dim, numbers[row * shape.dims + dim]);
          tile[row * shape.dims + dim] = LoadElement(RowType::kF16, to, dim);
        }
        sources.push_back(to);
      }
      if (Pick(random, 0, 1) == 0) {
        std::swap(sources[0], sources[1]);
        std::swap_ranges(tile.begin(), tile.begin() + shape.dims, tile.begin() + shape.dims);
      }
      kernels::test::Guarded want(Bytes(shape));
      kernels::test::Guarded got(Bytes(shape));
      scalar::Encode(shape, tile.data(), shape.rows, want.data());
      std::vector<std::byte> work(tile.size() * 2);
      if (EncodeHalves(shape, sources, work.data(), got.data())) {
        ++encoded;
        ASSERT_EQ(got.Text(), want.Text());
      } else {
        ASSERT_EQ(got.Text(), std::string(got.size(), '\0'));
      }
      std::byte* element = rows.data() + Pick(random, 0, shape.rows - 1) * row_bytes;
      StoreElement(RowType::kF16, element, Pick(random, 0, shape.dims - 1),
                   std::numeric_limits<float>::infinity() * (round % 2 == 0 ? 1.0F : -1.0F));
      ASSERT_FALSE(EncodeHalves(shape, sources, work.data(), got.data()));
      ASSERT_FALSE(EncodeHalves(shape, std::span(sources).first(31), work.data(), got.data()));
    }
    // All shapes of a multiple of 16 where there is vector code, and none where there is none.
    EXPECT_TRUE(encoded > 60 || hwy::SupportedTargets() == HWY_SCALAR) << encoded;
  });
}

// As docs/encodings.md has it, written down again by hand.
TEST(IntRecordTest, GoldenBytes) {
  RecordShape shape = {.codec = Codec::kInt4, .plane = RecordPlane::kKey, .rows = 64, .dims = 8};
  std::vector<float> tile(64 * 8 + kTileSlack);
  for (size_t row = 0; row < 64; ++row) {
    for (size_t dim = 0; dim < 8; ++dim) {
      const size_t code = (row * 5 + dim * 3) % 16;
      tile[row * 8 + dim] = -1.0F + 0.25F * static_cast<float>(code);
    }
  }
  std::vector<std::byte> record(Bytes(shape));
  std::vector<float> copy = tile;
  Encode(shape, copy.data(), 64, record.data());
  const auto byte = [&](size_t at) { return std::to_integer<unsigned>(record[at]); };
  const auto code = [](size_t row, size_t dim) { return (row * 5 + dim * 3) % 16; };
  for (size_t dim = 0; dim < 8; ++dim) {
    EXPECT_EQ(byte(2 * dim) | byte(2 * dim + 1) << 8U, 0x3400U);            // 0.25
    EXPECT_EQ(byte(16 + 2 * dim) | byte(16 + 2 * dim + 1) << 8U, 0xBC00U);  // -1
  }
  for (size_t run = 0; run < 4; ++run) {
    for (size_t row = 0; row < 16; ++row) {
      const size_t at = 32 + (run * 16 + row) * 4;
      EXPECT_EQ(byte(at), code(row, run) | code(row + 16, run) << 4U);
      EXPECT_EQ(byte(at + 1), code(row + 32, run) | code(row + 48, run) << 4U);
      EXPECT_EQ(byte(at + 2), code(row, run + 4) | code(row + 16, run + 4) << 4U);
      EXPECT_EQ(byte(at + 3), code(row + 32, run + 4) | code(row + 48, run + 4) << 4U);
    }
  }
  // Values of rows that go from 0 to 15 quarters, up or down.
  shape.plane = RecordPlane::kValue;
  shape.dims = 16;
  tile.assign(64 * 16 + kTileSlack, 0.0F);
  const auto value_code = [](size_t row, size_t dim) { return row % 2 == 0 ? dim : 15 - dim; };
  for (size_t i = 0; i < size_t{64} * 16; ++i) {
    tile[i] = -2.0F + 0.25F * static_cast<float>(value_code(i / 16, i % 16));
  }
  record.resize(Bytes(shape));
  Encode(shape, tile.data(), 64, record.data());
  for (size_t row = 0; row < 64; ++row) {
    EXPECT_EQ(byte(2 * row) | byte(2 * row + 1) << 8U, 0x3400U);              // 0.25
    EXPECT_EQ(byte(128 + 2 * row) | byte(128 + 2 * row + 1) << 8U, 0xC000U);  // -2
  }
  for (size_t piece = 0; piece < 8; ++piece) {
    for (size_t dim = 0; dim < 16; ++dim) {
      for (size_t pair = 0; pair < 4; ++pair) {
        const size_t row = piece * 8 + pair * 2;
        EXPECT_EQ(byte(256 + (piece * 16 + dim) * 4 + pair),
                  value_code(row, dim) | value_code(row + 1, dim) << 4U);
      }
    }
  }
}

TEST(IntRecordTest, NoElementIsOffByMoreThanHalfAScale) {
  ForEachTarget([] {
    std::mt19937 random(2);
    for (int round = 0; round < 200; ++round) {
      SCOPED_TRACE(round);
      Encoded it(random);
      const auto [rows, dims] = std::pair(it.shape.rows, it.shape.dims);
      const double levels = it.shape.codec == Codec::kInt8 ? 255 : 15;
      std::vector<float> got(size_t{rows} * dims);
      Decode(it.shape, it.record.data(), got.data());
      for (size_t row = 0; row < it.count; ++row) {
        for (size_t dim = 0; dim < dims; ++dim) {
          // The elements that share the scale: a column, or up to 64 channels of a row.
          const bool key = it.shape.plane == RecordPlane::kKey;
          double least = 1e30;
          double most = -1e30;
          const size_t first = dim / 64 * 64;
          const size_t others = key ? it.count : std::min<size_t>(64, dims - first);
          for (size_t i = 0; i < others; ++i) {
            const double x = it.tile[key ? i * dims + dim : row * dims + first + i];
            least = std::min(least, x);
            most = std::max(most, x);
          }
          // Zero moves down by less than a step of f16, the scale up by less than one.
          const double zero = least - std::max(std::abs(least) * 0x1p-10, 0x1p-24);
          const double scale = (most - zero) / levels * (1 + 0x1p-10) + 0x1p-24;
          const double x = it.tile[row * dims + dim];
          const double slack = 1e-6 * (std::abs(least) + std::abs(most));
          ASSERT_NEAR(got[row * dims + dim], x, scale / 2 + slack) << row << ' ' << dim;
        }
      }
    }
  });
}

TEST(IntRecordTest, MissingRowsHoldNothingAndChangeNothing) {
  std::mt19937 random(3);
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(round);
    Encoded it(random);
    std::vector<float> other = it.tile;
    std::fill(other.begin() + static_cast<ptrdiff_t>(it.count * it.shape.dims), other.end(), 7e4F);
    kernels::test::Guarded again(it.record.size());
    Encode(it.shape, other.data(), it.count, again.data());
    ASSERT_EQ(again.Text(), it.record.Text());
    if (it.shape.plane == RecordPlane::kValue) {
      std::vector<float> rows(it.shape.rows * it.shape.dims, 1.0F);
      Decode(it.shape, it.record.data(), rows.data());
      EXPECT_EQ(std::count(rows.begin() + static_cast<ptrdiff_t>(it.count * it.shape.dims),
                           rows.end(), 0.0F),
                static_cast<ptrdiff_t>((it.shape.rows - it.count) * it.shape.dims));
    }
  }
}

TEST(IntRecordTest, DecodedScoresAndSumsAgreeWithDoubles) {
  ForEachTarget([] {
    std::mt19937 random(4);
    for (int round = 0; round < 200; ++round) {
      SCOPED_TRACE(round);
      Encoded it(random);
      const auto [rows, dims] = std::pair(it.shape.rows, it.shape.dims);
      std::vector<float> want(size_t{rows} * dims);
      std::vector<float> got(want.size());
      scalar::Decode(it.shape, it.record.data(), want.data());
      Decode(it.shape, it.record.data(), got.data());
      const float largest = std::abs(*std::max_element(
          want.begin(), want.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], want[i], 1e-6F * largest);
      }
      const uint32_t queries = Pick(random, 1, 9);
      const std::vector<float> q = Randoms(size_t{queries} * dims, random);
      const std::vector<float> weights = Randoms(size_t{queries} * rows, random);
      std::vector<float> scores(size_t{queries} * rows, -1.0F);
      std::vector<float> sums(size_t{queries} * dims, 0.5F);
      Scores(it.shape, it.record.data(), q.data(), queries, scores.data());
      AddValues(it.shape, it.record.data(), weights.data(), queries, sums.data());
      for (size_t query = 0; query < queries; ++query) {
        for (size_t row = 0; row < rows; ++row) {
          double sum = 0;
          double size = 0;
          for (size_t dim = 0; dim < dims; ++dim) {
            const double product = double{q[query * dims + dim]} * double{want[row * dims + dim]};
            sum += product;
            size += std::abs(double{q[query * dims + dim]}) * double{largest};
          }
          ASSERT_NEAR(scores[query * rows + row], sum, 1e-5 * size) << query << ' ' << row;
        }
        for (size_t dim = 0; dim < dims; ++dim) {
          double sum = 0.5;
          double size = 0.5;
          for (size_t row = 0; row < rows; ++row) {
            const double weight = weights[query * rows + row];
            sum += weight * double{want[row * dims + dim]};
            size += std::abs(weight) * double{largest};
          }
          ASSERT_NEAR(sums[query * dims + dim], sum, 1e-5 * size) << query << ' ' << dim;
        }
      }
    }
  });
}

TEST(IntRecordTest, ScalesAndZerosThatCannotBeAreRefused) {
  std::mt19937 random(5);
  for (int round = 0; round < 50; ++round) {
    Encoded it(random);
    ASSERT_TRUE(Check(it.shape, it.record.data()).ok());
    const bool key = it.shape.plane == RecordPlane::kKey;
    const uint32_t scales = key ? it.shape.dims : it.shape.rows * ((it.shape.dims + 63) / 64);
    const uint32_t at = Pick(random, 0, scales - 1);
    for (const uint16_t bad : std::initializer_list<uint16_t>{0x7C00, 0x7E01, 0x8000, 0xFC00}) {
      std::vector<std::byte> scale(it.record.data(), it.record.data() + it.record.size());
      std::memcpy(scale.data() + size_t{at} * 2, &bad, sizeof bad);
      const absl::Status status = Check(it.shape, scale.data());
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_NE(MessageOf(status).find("scale[" + std::to_string(at) + "]"), std::string::npos)
          << MessageOf(status);
    }
    for (const uint16_t bad : std::initializer_list<uint16_t>{0x7C00, 0xFC00, 0x7C01, 0xFFFF}) {
      std::vector<std::byte> zero(it.record.data(), it.record.data() + it.record.size());
      std::memcpy(zero.data() + (size_t{scales} + at) * 2, &bad, sizeof bad);
      const absl::Status status = Check(it.shape, zero.data());
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_NE(MessageOf(status).find("zero[" + std::to_string(at) + "]"), std::string::npos)
          << MessageOf(status);
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels::ints
