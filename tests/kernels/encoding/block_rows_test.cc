// Tiles of every target against the plain code, bit for bit, and both against angles in double.
#include "kernels/encoding/block_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels/targets.h"

namespace kvasir::kernels {
namespace {

constexpr RowType kTypes[] = {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3};

struct Case {
  RowType type;
  uint32_t dims;
  std::vector<std::byte> bytes;
  std::vector<const std::byte*> sources;
};

Case MakeCase(RowType type, uint32_t dims, size_t rows, size_t offset, std::mt19937& random) {
  Case it = {type, dims, RandomRows(type, offset, rows * dims, random), {}};
  for (size_t row = 0; row < rows; ++row) {
    // Backwards, so that nothing depends on the order of addresses.
    it.sources.push_back(it.bytes.data() + offset + (rows - 1 - row) * dims * ElementBytes(type));
  }
  return it;
}

// A tile with a guard behind it that must stay.
std::vector<float> Load(const Case& it, const RecordTurn& turn, bool plain) {
  std::vector<float> tile(it.sources.size() * it.dims + 1, 12345.0F);
  (plain ? scalar::LoadBlockRows : LoadBlockRows)(it.type, it.dims, it.sources, turn, tile.data());
  EXPECT_EQ(tile.back(), 12345.0F);
  tile.pop_back();
  return tile;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(BlockRowsTest, RowsThatAreNotTurnedKeepEveryBit) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (const RowType type : kTypes) {
      for (uint32_t dims = 8; dims <= 256; dims += 8) {
        for (const size_t offset : {0U, 1U, 30U}) {
          const Case it = MakeCase(type, dims, 7, offset, random);
          const std::vector<int64_t> none(7, 0);
          std::vector<float> want;
          for (const std::byte* row : it.sources) {
            for (uint32_t dim = 0; dim < dims; ++dim) {
              want.push_back(LoadElement(type, row, dim));
            }
          }
          EXPECT_TRUE(SameBits(Load(it, {}, false), want)) << dims;
          EXPECT_TRUE(SameBits(Load(it, {{.rotated_dims = dims}, none}, false), want)) << dims;
        }
      }
    }
  });
}

TEST(BlockRowsTest, TurnsOfEveryShapeEqualThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(2);
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    for (int round = 0; round < 300; ++round) {
      const auto dims = static_cast<uint32_t>(pick(1, 32)) * 8;
      const auto rows = static_cast<size_t>(pick(1, 64));
      const Case it = MakeCase(kTypes[round % 4], dims, rows, 2, random);
      RopeShape rope;
      rope.pairing = pick(0, 1) == 0 ? RopePairing::kInterleaved : RopePairing::kHalfSplit;
      rope.rotated_dims = pick(0, 1) == 0 ? dims : static_cast<uint32_t>(pick(0, dims / 2)) * 2;
      rope.theta = pick(0, 1) == 0 ? 10000.0 : 500000.0;
      std::vector<int64_t> deltas(rows);
      const int64_t reach = round / 4 % 2 == 0 ? 4000000 : 3;
      std::generate(deltas.begin(), deltas.end(), [&] { return pick(-reach, reach); });
      const RecordTurn turn = {rope, deltas};
      EXPECT_TRUE(SameBits(Load(it, turn, false), Load(it, turn, true)))
          << dims << " " << rope.rotated_dims;
    }
  });
}

TEST(BlockRowsTest, TurnsAreThoseOfAnglesInDouble) {
  ForEachTarget([] {
    std::mt19937 random(3);
    for (const auto pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
      for (const uint32_t rotated : {0U, 2U, 34U, 64U, 96U}) {
        const std::vector<int64_t> deltas = {-1, 37, -8200, 0, 131071, -4000000};
        const Case it = MakeCase(RowType::kF32, 96, deltas.size(), 0, random);
        const RopeShape rope = {.pairing = pairing, .rotated_dims = rotated};
        const std::vector<float> tile = Load(it, {rope, deltas}, false);
        for (size_t i = 0; i < tile.size(); ++i) {
          const std::byte* row = it.sources[i / 96];
          const auto dim = static_cast<uint32_t>(i % 96);
          double want = double{LoadElement(RowType::kF32, row, dim)};
          if (dim < rotated) {
            const bool interleaved = pairing == RopePairing::kInterleaved;
            const uint32_t pair = interleaved ? dim / 2 : dim % (rotated / 2);
            const bool second = interleaved ? dim % 2 == 1 : dim >= rotated / 2;
            const uint32_t a = interleaved ? 2 * pair : pair;
            const uint32_t b = interleaved ? a + 1 : pair + rotated / 2;
            const double angle = static_cast<double>(deltas[i / 96]) *
                                 std::pow(rope.theta, -2.0 * static_cast<double>(pair) / rotated);
            const double x = double{LoadElement(RowType::kF32, row, a)};
            const double y = double{LoadElement(RowType::kF32, row, b)};
            want = second ? x * std::sin(angle) + y * std::cos(angle)
                          : x * std::cos(angle) - y * std::sin(angle);
          }
          ASSERT_NEAR(tile[i], want, 3e-6) << rotated << " " << i;
        }
      }
    }
  });
}

TEST(BlockRowsTest, WhatIsNoFiniteHalfIsMadeOne) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::pair<float, float> kElements[] = {{std::numeric_limits<float>::quiet_NaN(), 0.0F},
                                               {kInfinity, 65504.0F},
                                               {-kInfinity, -65504.0F},
                                               {1e30F, 65504.0F},
                                               {-65504.0F, -65504.0F},
                                               {1.0F, 1.0F},
                                               {-0.0F, -0.0F}};
  ForEachTarget([&] {
    for (const RowType type : kTypes) {
      for (const auto& [element, want] : kElements) {
        for (size_t at = 0; at < 40; ++at) {
          std::vector<std::byte> row(40 * ElementBytes(type));
          StoreElement(type, row.data(), at, element);
          std::vector<float> expected(40, 0.0F);
          expected[at] = std::clamp(LoadElement(type, row.data(), at), -kTileMax, kTileMax);
          expected[at] = want == 0.0F ? want : expected[at];
          const Case it = {type, 40, row, {row.data()}};
          EXPECT_TRUE(SameBits(Load(it, {}, false), expected)) << element << " at " << at;
        }
      }
    }
  });
}

// A turn of the largest values must neither leave the bounds nor make a not-a-number of an
// infinity.
TEST(BlockRowsTest, DamagedRowsStayWithinBoundsWhenTurned) {
  ForEachTarget([] {
    for (const auto pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
      for (const float element : {std::numeric_limits<float>::infinity(), 65504.0F}) {
        std::vector<std::byte> row(64 * 2);
        for (size_t dim = 0; dim < 64; ++dim) {
          StoreElement(RowType::kF16, row.data(), dim, dim % 3 == 0 ? -element : element);
        }
        const Case it = {RowType::kF16, 64, row, {row.data()}};
        const std::vector<int64_t> deltas = {1};
        const RecordTurn turn = {{.pairing = pairing, .rotated_dims = 64}, deltas};
        const std::vector<float> tile = Load(it, turn, false);
        EXPECT_TRUE(SameBits(tile, Load(it, turn, true)));
        EXPECT_EQ(*std::max_element(tile.begin(), tile.end()), 65504.0F);
        for (const float value : tile) {
          EXPECT_LE(std::abs(value), 65504.0F);
        }
      }
    }
  });
}

}  // namespace
}  // namespace kvasir::kernels
