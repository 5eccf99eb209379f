// Gathering and re-rotation of every target against plain copies and the plain code.
#include "kernels/gather.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>

#include "kernels/turn_row.h"
#include "targets.h"

namespace kvasir::kernels {
namespace {

std::vector<const std::byte*> ScatteredRows(const std::vector<std::byte>& pool, size_t offset,
                                            size_t row_bytes, size_t rows, std::mt19937& random) {
  const size_t held = (pool.size() - offset) / row_bytes;
  std::uniform_int_distribution<size_t> pick(0, held - 1);
  std::vector<const std::byte*> sources(rows);
  std::generate(sources.begin(), sources.end(),
                [&] { return pool.data() + offset + pick(random) * row_bytes; });
  return sources;
}

TEST(GatherRowsTest, CopiesAnyRowSizeToAnyAddress) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (const size_t row_bytes : {1U, 3U, 16U, 63U, 64U, 100U, 256U, 384U, 2048U, 2049U}) {
      for (const size_t rows : {0U, 1U, 2U, 37U}) {
        for (const size_t offset : {0U, 1U, 32U}) {
          const auto pool = RandomRows(RowType::kBF16, offset, row_bytes * 25, random);
          const auto sources = ScatteredRows(pool, offset, row_bytes, rows, random);
          constexpr std::byte kGuard{0xA5};
          std::vector<std::byte> got(offset + rows * row_bytes + 1, kGuard);
          GatherRows(sources, row_bytes, got.data() + offset);
          for (size_t row = 0; row < rows; ++row) {
            ASSERT_EQ(0,
                      std::memcmp(got.data() + offset + row * row_bytes, sources[row], row_bytes));
          }
          EXPECT_EQ(got.back(), kGuard);
        }
      }
    }
  });
}

TEST(GatherRowsTest, LargeDestinationsAreExactToo) {
  ForEachTarget([] {
    std::mt19937 random(2);
    for (const size_t offset : {0U, 64U, 8U}) {
      const size_t rows = 3000;
      const size_t row_bytes = 384;
      const auto pool = RandomRows(RowType::kF16, offset, 192 * 500, random);
      const auto sources = ScatteredRows(pool, offset, row_bytes, rows, random);
      std::vector<std::byte> got(offset + rows * row_bytes + 63);
      const size_t start = offset + (64 - reinterpret_cast<uintptr_t>(got.data()) % 64) % 64;
      GatherRows(sources, row_bytes, got.data() + start);
      for (size_t row = 0; row < rows; ++row) {
        ASSERT_EQ(0, std::memcmp(got.data() + start + row * row_bytes, sources[row], row_bytes));
      }
    }
  });
}

TEST(GatherPiecesTest, CopiesPiecesAtAStrideAndNothingBetween) {
  ForEachTarget([] {
    std::mt19937 random(11);
    // 40,000 pieces of 128 bytes are written past the caches where they are aligned.
    for (const auto [piece, gap, rows] : {std::array{1U, 0U, 5U},
                                          {3U, 9U, 33U},
                                          {64U, 0U, 7U},
                                          {100U, 28U, 37U},
                                          {128U, 256U, 1U},
                                          {256U, 1U, 0U},
                                          {129U, 127U, 20U},
                                          {128U, 64U, 40000U},
                                          {128U, 96U, 40000U}}) {
      for (const size_t offset : {0U, 5U, 64U}) {
        const size_t stride = piece + gap;
        const auto pool = RandomRows(RowType::kBF16, offset, piece * 25, random);
        const auto sources = ScatteredRows(pool, offset, piece, rows, random);
        std::vector<std::byte> space(offset + rows * stride + 64 + piece, std::byte{0xA5});
        auto want = space;
        std::byte* start = space.data() + offset;
        start += (64 - reinterpret_cast<uintptr_t>(space.data()) % 64) % 64;
        for (size_t row = 0; row < rows; ++row) {
          std::memcpy(want.data() + (start - space.data()) + row * stride, sources[row], piece);
        }
        GatherPieces(sources, piece, start, stride);
        ASSERT_EQ(space, want) << piece << " " << gap << " " << offset;
      }
    }
  });
}

float Tolerance(RowType type) {
  switch (type) {
    case RowType::kF16:
      return 0x1p-10F;
    case RowType::kBF16:
      return 0x1p-7F;
    case RowType::kF32:
      return 1e-6F;
    case RowType::kE4M3:
      return 0x1p-3F;
  }
  return 0;
}

// Both codes round to the nearest even, so nearly all elements are the same bits; sums in a
// different order leave the rest one step apart. Cutting instead of rounding would change every
// second one.
void ExpectRotatedAlike(RowType type, const std::vector<std::byte>& got,
                        const std::vector<std::byte>& want) {
  const size_t elements = got.size() / ElementBytes(type);
  size_t different = 0;
  for (size_t i = 0; i < elements; ++i) {
    const float a = LoadElement(type, got.data(), i);
    const float b = LoadElement(type, want.data(), i);
    different += a != b ? 1 : 0;
    const float step = type == RowType::kE4M3 ? 0x1p-9F : 5e-7F;  // of the smallest
    ASSERT_NEAR(a, b, Tolerance(type) * std::abs(b) + step) << "element " << i;
  }
  if (type != RowType::kF32 && elements > 1000) {
    EXPECT_LT(different, elements / 50);
  }
}

TEST(GatherRotateRowsTest, RandomShapesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(3);
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const RowType types[] = {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3};
    const uint32_t dims[] = {2, 20, 63, 64, 80, 128};
    for (int round = 0; round < 200; ++round) {
      SCOPED_TRACE(round);
      RopeShape shape;
      shape.type = types[pick(0, 3)];
      shape.pairing = round % 2 == 0 ? RopePairing::kInterleaved : RopePairing::kHalfSplit;
      shape.kv_heads = static_cast<uint32_t>(pick(1, 4));
      shape.head_dim = dims[pick(0, 5)];
      shape.rotated_dims = shape.head_dim / 2 * 2;
      if (pick(0, 2) == 0) {
        shape.rotated_dims = static_cast<uint32_t>(pick(0, shape.head_dim / 2)) * 2;
      }
      shape.theta = pick(0, 1) == 0 ? 10000.0 : 500000.0;
      const size_t row_bytes = size_t{shape.kv_heads} * shape.head_dim * ElementBytes(shape.type);
      const auto rows = static_cast<size_t>(pick(0, 30));
      const auto offset = static_cast<size_t>(pick(0, 3));
      const auto pool =
          RandomRows(shape.type, offset, size_t{shape.kv_heads} * shape.head_dim * 9, random);
      const auto sources = ScatteredRows(pool, offset, row_bytes, rows, random);
      std::vector<int64_t> deltas(rows);
      const int64_t reach = round % 3 == 0 ? 4000000 : 300;
      std::generate(deltas.begin(), deltas.end(), [&] { return pick(-reach, reach); });
      std::vector<std::byte> got(rows * row_bytes), want(rows * row_bytes);
      GatherRotateRows(shape, sources, deltas, got.data());
      scalar::GatherRotateRows(shape, sources, deltas, want.data());
      ExpectRotatedAlike(shape.type, got, want);
    }
  });
}

// What devices turn rows by: the same factors, one pair at a time, are the same bits.
TEST(MakeTurnsTest, RowsTurnedByTheFactorsAreTheSameBits) {
  ForEachTarget([] {
    std::mt19937 random(8);
    for (const auto& [heads, dim, rotated] : {std::array{8U, 128U, 128U},
                                              {3U, 64U, 64U},
                                              {1U, 128U, 128U},
                                              {2U, 80U, 32U},
                                              {2U, 128U, 126U},
                                              {1U, 63U, 50U},
                                              {3U, 26U, 22U},
                                              {2U, 40U, 0U}}) {
      for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
        for (const auto pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
          const RopeShape shape = {type, pairing, heads, dim, rotated, 500000.0};
          const size_t row_bytes = size_t{heads} * dim * ElementBytes(type);
          const std::vector<int64_t> deltas = {-1, 37, 37, 31, -32, -8200, 8192, 131071, -4000001};
          const auto pool = RandomRows(type, 0, size_t{heads} * dim * 9, random);
          const auto sources = ScatteredRows(pool, 0, row_bytes, deltas.size(), random);
          std::vector<std::byte> want(deltas.size() * row_bytes), got(want.size());
          GatherRotateRows(shape, sources, deltas, want.data());
          std::vector<float> turns(deltas.size() * rotated);
          MakeTurns(shape, deltas, turns.data());
          for (size_t row = 0; row < deltas.size(); ++row) {
            TurnRow(shape, turns.data() + row * rotated, sources[row],
                    got.data() + row * row_bytes);
          }
          ASSERT_EQ(got, want) << heads << "x" << dim << " " << rotated << " type "
                               << static_cast<int>(type);
        }
      }
    }
  });
}

TEST(GatherRotateRowsTest, LargeDestinationsAgreeToo) {
  ForEachTarget([] {
    std::mt19937 random(4);
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
      const RopeShape shape = {
          .type = type,
          .pairing = type == RowType::kF16 ? RopePairing::kInterleaved : RopePairing::kHalfSplit,
          .kv_heads = 3};
      const size_t row_bytes = 3 * 64 * ElementBytes(type);
      const size_t rows = (size_t{3} << 19U) / row_bytes;
      const auto pool = RandomRows(type, 0, 3 * 64 * 100, random);
      const auto sources = ScatteredRows(pool, 0, row_bytes, rows, random);
      std::vector<int64_t> deltas(rows);
      for (size_t row = 0; row < rows; ++row) {
        deltas[row] = -static_cast<int64_t>(row / 7 * 4);
      }
      std::vector<std::byte> space(rows * row_bytes + 64), want(rows * row_bytes);
      std::byte* start = space.data() + (64 - reinterpret_cast<uintptr_t>(space.data()) % 64) % 64;
      GatherRotateRows(shape, sources, deltas, start);
      scalar::GatherRotateRows(shape, sources, deltas, want.data());
      ExpectRotatedAlike(type, {start, start + want.size()}, want);
    }
  });
}

// Against angles and products in double: partial rotary dimensions, odd numbers of pairs, heads
// that no vector divides. The golden bound of re-rotation is 2e-5.
TEST(GatherRotateRowsTest, OddShapesAreTurnedExactly) {
  ForEachTarget([] {
    std::mt19937 random(6);
    for (const auto pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
      for (const auto& [head_dim, rotated] : {std::pair{6U, 6U},
                                              {10U, 2U},
                                              {26U, 22U},
                                              {64U, 34U},
                                              {80U, 32U},
                                              {128U, 0U},
                                              {128U, 96U},
                                              {128U, 126U},
                                              {192U, 64U},
                                              {256U, 256U}}) {
        for (const uint32_t kv_heads : {1U, 2U, 3U}) {
          const RopeShape shape = {.type = RowType::kF32,
                                   .pairing = pairing,
                                   .kv_heads = kv_heads,
                                   .head_dim = head_dim,
                                   .rotated_dims = rotated};
          const auto pool = RandomRows(RowType::kF32, 0, kv_heads * head_dim, random);
          const std::vector<int64_t> deltas = {-1, 37, -8200, 131071, -1000000};
          const std::vector<const std::byte*> sources(deltas.size(), pool.data());
          std::vector<std::byte> got(pool.size() * deltas.size());
          GatherRotateRows(shape, sources, deltas, got.data());
          for (size_t i = 0; i < deltas.size() * kv_heads * head_dim; ++i) {
            const size_t dim = i % head_dim;
            const size_t head = i / head_dim % kv_heads * head_dim;
            const bool interleaved = pairing == RopePairing::kInterleaved;
            const size_t pair = interleaved ? dim / 2 : dim % std::max(rotated / 2, 1U);
            const bool second = interleaved ? dim % 2 == 1 : dim >= rotated / 2;
            const size_t a = interleaved ? 2 * pair : pair;
            const size_t b = interleaved ? a + 1 : pair + rotated / 2;
            double want = double{LoadElement(RowType::kF32, pool.data(), head + dim)};
            if (dim < rotated) {
              const double angle =
                  static_cast<double>(deltas[i / head_dim / kv_heads]) *
                  std::pow(shape.theta, -2.0 * static_cast<double>(pair) / rotated);
              const double x = double{LoadElement(RowType::kF32, pool.data(), head + a)};
              const double y = double{LoadElement(RowType::kF32, pool.data(), head + b)};
              want = second ? x * std::sin(angle) + y * std::cos(angle)
                            : x * std::cos(angle) - y * std::sin(angle);
            }
            ASSERT_NEAR(LoadElement(RowType::kF32, got.data(), i), want, 2e-6)
                << head_dim << " " << rotated << " " << i;
          }
        }
      }
    }
  });
}

TEST(GatherRotateRowsTest, NoDeltaKeepsEveryBit) {
  ForEachTarget([] {
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
      // All bit patterns of 16 bits, or pairs of 8, NaN and subnormals included.
      std::vector<uint16_t> bits(65536);
      for (size_t i = 0; i < bits.size(); ++i) {
        bits[i] = static_cast<uint16_t>(i);
      }
      const RopeShape shape = {.type = type, .kv_heads = 2};
      const size_t row_bytes = 2 * 64 * ElementBytes(type);
      std::vector<const std::byte*> sources(bits.size() * 2 / row_bytes);
      for (size_t row = 0; row < sources.size(); ++row) {
        sources[row] = reinterpret_cast<const std::byte*>(bits.data()) + row * row_bytes;
      }
      std::vector<uint16_t> got(bits.size());
      GatherRotateRows(shape, sources, std::vector<int64_t>(sources.size()),
                       reinterpret_cast<std::byte*>(got.data()));
      EXPECT_EQ(got, bits);
    }
  });
}

TEST(GatherRotateRowsTest, ThereAndBackIsTheSame) {
  ForEachTarget([] {
    std::mt19937 random(5);
    for (const auto pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
      const RopeShape shape = {.type = RowType::kF32, .pairing = pairing};
      const auto pool = RandomRows(RowType::kF32, 0, 64, random);
      const std::byte* source = pool.data();
      for (const int64_t delta : {1, -1, 255, 256, -256, -257, 4000003}) {
        std::vector<std::byte> there(256), back(256);
        const int64_t reverse = -delta;
        GatherRotateRows(shape, {&source, 1}, {&delta, 1}, there.data());
        const std::byte* turned = there.data();
        GatherRotateRows(shape, {&turned, 1}, {&reverse, 1}, back.data());
        for (size_t i = 0; i < 64; ++i) {
          ASSERT_NEAR(LoadElement(RowType::kF32, back.data(), i),
                      LoadElement(RowType::kF32, source, i), 1e-6F);
        }
        EXPECT_NE(there, pool);
      }
    }
  });
}

}  // namespace
}  // namespace kvasir::kernels
