// The token-mixed code of every target against the plain code, and against what it is for.
#include "kernels/encoding/tm_record.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/encoding/block_rows.h"
#include "tests/kernels/targets.h"

namespace kvasir::kernels {
namespace {

RecordShape ShapeOf(RecordPlane plane, uint32_t rows, uint32_t dims, uint32_t planes) {
  return {.codec = Codec::kTokenMixed,
          .plane = plane,
          .rows = rows,
          .dims = dims,
          .code_planes = planes};
}

std::vector<std::byte> Encoded(const RecordShape& shape, const std::vector<float>& tile,
                               uint32_t filled, std::span<const float> weights, bool plain) {
  // What lay there before must not matter.
  std::vector<std::byte> record(tm::Bytes(shape), plain ? std::byte{0x5A} : std::byte{0xA5});
  (plain ? tm::scalar::Encode : tm::Encode)(shape, tile.data(), filled, weights, record.data());
  return record;
}

// Fills a tile in one of the ways that blocks may look, usual ones and others.
enum class Look { kNormal, kConstant, kZero, kTiny, kOutliers, kLargest, kMixture };
constexpr Look kLooks[] = {Look::kNormal,   Look::kConstant, Look::kZero,   Look::kTiny,
                           Look::kOutliers, Look::kLargest,  Look::kMixture};

float ElementOf(Look look, uint32_t row, uint32_t c, std::mt19937& random) {
  const float normal = std::normal_distribution<float>()(random);
  switch (look) {
    case Look::kNormal:
      return normal * std::exp2(static_cast<float>(c % 7)) + static_cast<float>(c % 5);
    case Look::kConstant:
      return static_cast<float>(c) - 3.5F;
    case Look::kZero:
      return c % 2 == 0 ? 0.0F : -0.0F;
    case Look::kTiny:
      return normal * (c % 3 == 0 ? 1e-40F : 1e-7F);
    case Look::kOutliers:
      return row == 3 || c == 5 ? normal * 3e4F : normal;
    case Look::kLargest:
      return normal > 0 ? kTileMax : -kTileMax;
    case Look::kMixture:
      return ElementOf(kLooks[(row * 31 + c) % 6], row, c, random);
  }
  return 0;
}

std::vector<float> TileOf(Look look, uint32_t filled, uint32_t dims, std::mt19937& random) {
  std::vector<float> tile;
  for (uint32_t i = 0; i < filled * dims; ++i) {
    tile.push_back(std::clamp(ElementOf(look, i / dims, i % dims, random), -kTileMax, kTileMax));
  }
  return tile;
}

struct Picked {
  RecordShape shape;
  uint32_t filled;
  std::vector<float> tile;
  std::vector<float> weights;
};

// A random shape with a tile of exactly the rows that are filled: reading more is found by asan.
Picked Pick(int round, std::mt19937& random) {
  const auto pick = [&](uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random);
  };
  const uint32_t dims = pick(1, 32) * 8;
  const uint32_t rows = pick(0, 1) == 0 ? 32 : 64;
  const uint32_t planes =
      std::array{dims / 2, dims * 2, dims * 6, pick(dims / 2, dims * 6)}[pick(0, 3)];
  Picked it = {
      ShapeOf(pick(0, 1) == 0 ? RecordPlane::kKey : RecordPlane::kValue, rows, dims, planes),
      pick(0, 1) == 0 ? rows : pick(1, rows),
      {},
      {}};
  it.tile = TileOf(kLooks[static_cast<size_t>(round) % std::size(kLooks)], it.filled, dims, random);
  if (it.shape.plane == RecordPlane::kKey && pick(0, 2) > 0) {
    const float odd[] = {0.0F,  1e-30F,
                         1e30F, std::numeric_limits<float>::infinity(),
                         -1.0F, std::numeric_limits<float>::quiet_NaN()};
    for (uint32_t c = 0; c < dims; ++c) {
      it.weights.push_back(pick(0, 3) == 0 ? odd[pick(0, 5)] : static_cast<float>(pick(0, 8)));
    }
  }
  return it;
}

TEST(TmRecordTest, AllTargetsMakeTheSameBytes) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 350; ++round) {
      const Picked it = Pick(round, random);
      const auto got = Encoded(it.shape, it.tile, it.filled, it.weights, false);
      ASSERT_EQ(got, Encoded(it.shape, it.tile, it.filled, it.weights, true))
          << round << " dims " << it.shape.dims << " rows " << it.shape.rows << " planes "
          << it.shape.code_planes << " filled " << it.filled;
      const absl::Status status = tm::Check(it.shape, got.data());
      ASSERT_TRUE(status.ok()) << status;
    }
  });
}

// How far apart sums of products in another order may be: a few roundings of the largest terms.
float Tolerance(const std::vector<float>& values) {
  float most = 1e-30F;
  for (const float value : values) {
    most = std::max(most, std::abs(value));
  }
  return most * 2e-4F;
}

void ExpectNear(const std::vector<float>& got, const std::vector<float>& want, float tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], tolerance) << i;
  }
}

TEST(TmRecordTest, RowsScoresAndSumsAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (int round = 0; round < 140; ++round) {
      SCOPED_TRACE(round);
      const Picked it = Pick(round, random);
      const auto record = Encoded(it.shape, it.tile, it.filled, it.weights, false);
      const size_t rows = it.shape.rows, dims = it.shape.dims;
      std::vector<float> decoded(rows * dims), plain(rows * dims);
      tm::Decode(it.shape, record.data(), decoded.data());
      tm::scalar::Decode(it.shape, record.data(), plain.data());
      ExpectNear(decoded, plain, Tolerance(plain) * 0.02F);
      const auto queries = static_cast<uint32_t>(round % 10);
      const bool keys = it.shape.plane == RecordPlane::kKey;
      std::vector<float> given(queries * (keys ? dims : rows)), got(queries * (keys ? rows : dims));
      std::generate(given.begin(), given.end(), [&] { return normal(random); });
      std::generate(got.begin(), got.end(), [&] { return normal(random); });
      std::vector<float> want = got;
      (keys ? tm::Scores : tm::AddValues)(it.shape, record.data(), given.data(), queries,
                                          got.data());
      (keys ? tm::scalar::Scores : tm::scalar::AddValues)(it.shape, record.data(), given.data(),
                                                          queries, want.data());
      ExpectNear(got, want, Tolerance(plain) * std::sqrt(static_cast<float>(dims)) + 1e-5F);
    }
  });
}

// Scores and sums on codes are those of the rows that a record decodes to.
TEST(TmRecordTest, ScoresAndSumsAreThoseOfTheRows) {
  ForEachTarget([] {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (const uint32_t rows : {32U, 64U}) {
      for (const uint32_t dims : {8U, 64U, 72U, 128U, 256U}) {
        const RecordShape key = ShapeOf(RecordPlane::kKey, rows, dims, dims * 5 / 2);
        const RecordShape value = ShapeOf(RecordPlane::kValue, rows, dims, dims * 2);
        const auto tile = TileOf(Look::kNormal, rows, dims, random);
        const auto k = Encoded(key, tile, rows, {}, false);
        const auto v = Encoded(value, tile, rows, {}, false);
        std::vector<float> k_rows(rows * dims), v_rows(rows * dims), q(dims), scores(rows),
            sums(dims);
        std::generate(q.begin(), q.end(), [&] { return normal(random); });
        tm::Decode(key, k.data(), k_rows.data());
        tm::Decode(value, v.data(), v_rows.data());
        tm::Scores(key, k.data(), q.data(), 1, scores.data());
        std::vector<float> weights(rows);
        std::generate(weights.begin(), weights.end(), [&] { return std::abs(normal(random)); });
        tm::AddValues(value, v.data(), weights.data(), 1, sums.data());
        for (uint32_t row = 0; row < rows; ++row) {
          double want = 0;
          for (uint32_t c = 0; c < dims; ++c) {
            want += double{q[c]} * double{k_rows[row * dims + c]};
          }
          ASSERT_NEAR(scores[row], want, 3e-3) << dims;
        }
        for (uint32_t c = 0; c < dims; ++c) {
          double want = 0;
          for (uint32_t row = 0; row < rows; ++row) {
            want += double{weights[row]} * double{v_rows[row * dims + c]};
          }
          ASSERT_NEAR(sums[c], want, 1e-2) << dims;
        }
      }
    }
  });
}

// Of the first `counted` channels of the rows that are there.
double MeanSquare(const RecordShape& shape, const std::vector<float>& tile, uint32_t filled,
                  std::span<const float> weights, uint32_t counted) {
  const auto record = Encoded(shape, tile, filled, weights, false);
  std::vector<float> rows(size_t{shape.rows} * shape.dims);
  tm::Decode(shape, record.data(), rows.data());
  double sum = 0;
  for (size_t i = 0; i < size_t{filled} * shape.dims; ++i) {
    sum += i % shape.dims < counted ? std::pow(double{rows[i]} - double{tile[i]}, 2) : 0;
  }
  return sum / static_cast<double>(size_t{filled} * counted);
}

// Normal rows of one spread lose what the code books promise: .1175 at 2 planes, .0345 at 3.
TEST(TmRecordTest, TheErrorIsThatOfTheCodeBooks) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (const RecordPlane plane : {RecordPlane::kKey, RecordPlane::kValue}) {
    for (const uint32_t rows : {32U, 64U}) {
      const std::pair<uint32_t, double> kExpected[] = {
          {1, 0.3634}, {2, 0.1175}, {3, 0.03454}, {4, 0.0095}, {6, 0.00064}};
      for (const auto& [planes, expected] : kExpected) {
        double sum = 0;
        for (int i = 0; i < 8; ++i) {
          std::vector<float> tile(size_t{rows} * 128);
          std::generate(tile.begin(), tile.end(), [&] { return normal(random); });
          sum += MeanSquare(ShapeOf(plane, rows, 128, planes * 128), tile, rows, {}, 128);
        }
        EXPECT_NEAR(sum / 8 / expected, 1, 0.1) << rows << " " << planes;
      }
    }
  }
}

TEST(TmRecordTest, PlanesGoWhereErrorsCostMost) {
  std::mt19937 random(5);
  const auto tile = TileOf(Look::kNormal, 64, 64, random);
  std::vector<float> weights(64, 0.0F);
  std::fill_n(weights.begin(), 16, 1.0F);
  const RecordShape shape = ShapeOf(RecordPlane::kKey, 64, 64, 128);
  EXPECT_LT(MeanSquare(shape, tile, 64, weights, 16) * 10, MeanSquare(shape, tile, 64, {}, 16));
  EXPECT_GT(MeanSquare(shape, tile, 64, weights, 64), MeanSquare(shape, tile, 64, {}, 64));
}

// Rows that are not there cost the others nothing: a block of few rows is kept no worse.
TEST(TmRecordTest, PartialBlocksKeepTheirRowsAsWell) {
  std::mt19937 random(6);
  for (const RecordPlane plane : {RecordPlane::kKey, RecordPlane::kValue}) {
    const auto tile = TileOf(Look::kNormal, 64, 64, random);
    const RecordShape shape = ShapeOf(plane, 64, 64, 128);
    const double whole = MeanSquare(shape, tile, 64, {}, 64);
    for (const uint32_t filled : {1U, 2U, 7U, 33U, 63U}) {
      EXPECT_LT(MeanSquare(shape, tile, filled, {}, 64), whole * 1.5) << filled;
    }
  }
}

TEST(TmRecordTest, ConstantRowsComeBackAsTheirMean) {
  std::mt19937 random(7);
  const auto tile = TileOf(Look::kConstant, 64, 64, random);
  const RecordShape shape = ShapeOf(RecordPlane::kKey, 64, 64, 128);
  std::vector<float> rows(64 * 64);
  tm::Decode(shape, Encoded(shape, tile, 64, {}, false).data(), rows.data());
  // A mean has eight bits.
  ExpectNear(rows, tile, 60.0F / 127);
}

}  // namespace
}  // namespace kvasir::kernels
