// Re-rotation against the code of the CPU, bit for bit; and the bounds of both turns' arguments.
#include "kernels/cuda/rotate_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/cuda/rope_table.h"
#include "tests/kernels/cuda/machine.h"
#include "tests/kernels/cuda/random.h"

namespace kvasir::kernels::cuda {
namespace {

using machine::Array;
using machine::Execute;
using RotateRowsTest = machine::Test;

// The numbers of the turns of rows, deltas that come twice once, and their factors.
struct Turns {
  std::vector<uint32_t> of;
  std::vector<float> factors;
};

Turns TurnsOf(const RopeShape& shape, const std::vector<int64_t>& deltas) {
  Turns turns;
  std::vector<int64_t> different;
  for (const int64_t delta : deltas) {
    const auto found = std::find(different.begin(), different.end(), delta);
    const auto number = static_cast<uint32_t>(found - different.begin());
    if (delta != 0 && found == different.end()) different.push_back(delta);
    turns.of.push_back(delta == 0 ? kNoTurn : number);
  }
  turns.factors.resize(different.size() * shape.rotated_dims);
  MakeTurns(shape, different, turns.factors.data());
  return turns;
}

void Compare(const RopeShape& shape, const std::vector<int64_t>& deltas, size_t offset,
             std::mt19937& random) {
  const size_t row_elements = size_t{shape.kv_heads} * shape.head_dim;
  const size_t row_bytes = row_elements * ElementBytes(shape.type);
  const size_t rows = deltas.size();
  const size_t held = 20;
  const Array pool(RandomElements(shape.type, held * row_elements, random), offset);
  const auto picked = RandomIndices(rows, held, random);
  const Array indices(picked);
  const Turns turns = TurnsOf(shape, deltas);
  const Array numbers(turns.of);
  const Array factors(turns.factors);
  const Array got(std::vector<std::byte>(rows * row_bytes), offset);
  RowRotation rotation = {.shape = shape};
  rotation.from = {.base = pool.bytes(), .stride = row_bytes, .indices = indices.data()};
  rotation.to = {.base = got.bytes(), .stride = row_bytes};
  rotation.turns = factors.data();
  rotation.turn_of = numbers.data();
  rotation.rows = rows;
  const absl::Status status = Execute(rotation);
  ASSERT_TRUE(status.ok()) << status.message();
  const auto source = pool.Read();
  const auto result = got.Read();
  std::vector<const std::byte*> sources;
  for (const uint32_t index : picked) {
    sources.push_back(source.data() + index * row_bytes);
  }
  std::vector<std::byte> expected(rows * row_bytes);
  GatherRotateRows(shape, sources, deltas, expected.data());
  for (size_t row = 0; row < rows; ++row) {
    ASSERT_EQ(0, std::memcmp(&result[row * row_bytes], &expected[row * row_bytes], row_bytes))
        << "row " << row << " delta " << deltas[row] << " shape " << shape.kv_heads << "x"
        << shape.head_dim << "/" << shape.rotated_dims;
  }
}

TEST_F(RotateRowsTest, EqualsTheCodeOfTheCpuInEveryShapeAndBit) {
  std::mt19937 random(5);
  // Llama-3-8B, SmolLM2-135M, and what is odd.
  for (const auto& [heads, dim, rotated] : {std::array{8U, 128U, 128U},
                                            {3U, 64U, 64U},
                                            {1U, 128U, 128U},
                                            {2U, 80U, 32U},
                                            {1U, 6U, 6U},
                                            {3U, 33U, 20U},
                                            {2U, 40U, 0U}}) {
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
      for (const RopePairing pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
        for (const size_t offset : {size_t{0}, size_t{8}, ElementBytes(type)}) {
          const RopeShape shape = {type, pairing, heads, dim, rotated, 500000.0};
          Compare(shape,
                  {0, 1, -1, 31, 32, -32, 8191, 8192, -70000, 123456, -1, -4000000, 4000001, 0},
                  offset, random);
        }
      }
    }
  }
}

// All pairs of two fp8 numbers: NaN, subnormals, and those whose turn is beyond the largest.
TEST_F(RotateRowsTest, EveryPairOfFp8IsTheCpusAndSaturates) {
  constexpr uint32_t kCodes = 256;
  for (const RopePairing pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
    const RopeShape shape = {RowType::kE4M3, pairing, 1, 2 * kCodes, 2 * kCodes, 10000.0};
    const bool interleaved = pairing == RopePairing::kInterleaved;
    std::vector<std::byte> pairs(kCodes * 2 * kCodes);  // row a has (a, b) for all b
    std::vector<const std::byte*> sources;
    for (uint32_t a = 0; a < kCodes; ++a) {
      std::byte* const row = &pairs[a * 2 * kCodes];
      sources.push_back(row);
      for (uint32_t b = 0; b < kCodes; ++b) {
        row[interleaved ? 2 * b : b] = static_cast<std::byte>(a);
        row[interleaved ? 2 * b + 1 : kCodes + b] = static_cast<std::byte>(b);
      }
    }
    const std::vector<int64_t> deltas(kCodes, -70000);
    const Turns turns = TurnsOf(shape, deltas);
    const Array pool(pairs);
    const Array numbers(turns.of);
    const Array factors(turns.factors);
    const Array got(std::vector<std::byte>(pairs.size()));
    RowRotation rotation = {.shape = shape};
    rotation.from = {.base = pool.bytes(), .stride = 2 * kCodes};
    rotation.to = {.base = got.bytes(), .stride = 2 * kCodes};
    rotation.turns = factors.data();
    rotation.turn_of = numbers.data();
    rotation.rows = kCodes;
    ASSERT_TRUE(Execute(rotation).ok());
    std::vector<std::byte> want(pairs.size());
    GatherRotateRows(shape, sources, deltas, want.data());
    const auto result = got.Read();
    ASSERT_EQ(result, want);
    uint32_t beyond = 0;
    for (uint32_t i = 0; i < kCodes * kCodes; ++i) {
      const uint32_t a = i / kCodes, b = i % kCodes;
      const std::byte* const row = &result[a * 2 * kCodes];
      const auto x = static_cast<uint8_t>(row[interleaved ? 2 * b : b]);
      const bool none = (a & 0x7FU) == 0x7F || (b & 0x7FU) == 0x7F;
      ASSERT_EQ(x == 0x7F, none) << a << " " << b;
      ASSERT_NE(x, 0xFF);
      const float of_a = E4m3ToFloat(static_cast<uint8_t>(a));
      const float of_b = E4m3ToFloat(static_cast<uint8_t>(b));
      const double exact = double{of_a} * double{turns.factors[b]} -
                           double{of_b} * double{turns.factors[kCodes + b]};
      if (!none && std::abs(exact) > 448) {
        ++beyond;
        ASSERT_EQ(x, exact > 0 ? 0x7E : 0xFE) << a << " " << b;
      } else if (!none) {
        // Half a step, by the smallest of the numbers around.
        ASSERT_NEAR(double{E4m3ToFloat(x)}, exact, std::abs(exact) / 16 + 0x1p-10) << a << " " << b;
      }
    }
    EXPECT_GT(beyond, 100U);
  }
}

TEST_F(RotateRowsTest, OneRowAndNoRow) {
  std::mt19937 random(6);
  const RopeShape shape = {RowType::kF16, RopePairing::kHalfSplit, 8, 128, 128, 10000.0};
  Compare(shape, {}, 0, random);
  Compare(shape, {-17}, 0, random);
}

// Rows past the end of the last block of threads.
TEST_F(RotateRowsTest, ManyRows) {
  std::mt19937 random(7);
  std::vector<int64_t> deltas(333);
  for (size_t i = 0; i < deltas.size(); ++i) {
    deltas[i] = -static_cast<int64_t>(i / 3);
  }
  Compare({RowType::kF16, RopePairing::kInterleaved, 3, 64, 64, 10000.0}, deltas, 0, random);
}

TEST_F(RotateRowsTest, ArgumentsOutOfBoundsAreNamed) {
  EXPECT_EQ(MakeRopeNumbers(0, 64, 1).status().message(),
            "theta is no finite number above 0: theta=0");
  EXPECT_EQ(MakeRopeNumbers(1e4, 3, 1).status().message(),
            "rotated dims out of bounds: rotated_dims=3 max=65536 multiple_of=2");
  EXPECT_EQ(MakeRopeNumbers(1e4, 4, 5000).status().message(),
            "highs out of bounds: highs=5000 max=4096");
  RowRotation rotation = {.shape = {}, .rows = 1};
  EXPECT_EQ(CheckRowRotation(rotation).message(), "a pointer is null: from");
  std::byte row[2] = {};
  rotation.from.base = row;
  rotation.to.base = row;
  EXPECT_EQ(CheckRowRotation(rotation).message(), "a pointer is null: turn_of");
  const uint32_t number = 0;
  rotation.turn_of = &number;
  EXPECT_EQ(CheckRowRotation(rotation).message(), "a pointer is null: turns");
  rotation.shape.rotated_dims = 66;
  EXPECT_EQ(CheckRowRotation(rotation).message(),
            "rotated dims out of bounds: rotated_dims=66 max=64 multiple_of=2");
  rotation.shape.type = static_cast<RowType>(4);
  EXPECT_EQ(CheckRowRotation(rotation).message(), "row type unknown: type=4 max=3");
  rotation.shape.type = RowType::kE4M3;
  rotation.shape.kv_heads = 0;
  EXPECT_EQ(CheckRowRotation(rotation).message(),
            "kv heads out of bounds: kv_heads=0 min=1 max=4096");
}

}  // namespace
}  // namespace kvasir::kernels::cuda
