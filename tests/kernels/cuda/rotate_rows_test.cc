// Re-rotation against the plain code, which takes every angle anew in double.
#include "kernels/cuda/rotate_rows.h"

#include <cmath>
#include <cstring>

#include "tests/kernels/cuda/machine.h"
#include "tests/kernels/cuda/random.h"

namespace kvasir::kernels::cuda {
namespace {

using machine::Array;
using machine::Execute;
using machine::Ropes;
using RotateRowsTest = machine::Test;

// A last bit of an element, and what 3e-7 of a turn move it.
float Tolerance(RowType type, float value) {
  const float bit = type == RowType::kF16 ? 0x1p-10F : type == RowType::kBF16 ? 0x1p-7F : 0x1p-22F;
  return std::abs(value) * bit + 4e-6F;
}

void Compare(const RopeShape& shape, const std::vector<int64_t>& deltas, uint32_t highs,
             size_t offset, std::mt19937& random) {
  const size_t row_elements = size_t{shape.kv_heads} * shape.head_dim;
  const size_t row_bytes = row_elements * ElementBytes(shape.type);
  const size_t rows = deltas.size();
  const size_t held = 20;
  const Array pool(RandomElements(shape.type, held * row_elements, random), offset);
  const auto picked = RandomIndices(rows, held, random);
  const Array indices(picked);
  const Array turns(deltas);
  const Array got(std::vector<std::byte>(rows * row_bytes), offset);
  const auto numbers = MakeRopeNumbers(shape.theta, shape.rotated_dims, highs);
  ASSERT_TRUE(numbers.ok());
  const Ropes ropes(*numbers);
  RowRotation rotation = {.shape = shape, .table = ropes.table()};
  rotation.from = {.base = pool.bytes(), .stride = row_bytes, .indices = indices.data()};
  rotation.to = {.base = got.bytes(), .stride = row_bytes};
  rotation.deltas = turns.data();
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
  scalar::GatherRotateRows(shape, sources, deltas, expected.data());
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < row_elements; ++i) {
      const float want = LoadElement(shape.type, &expected[row * row_bytes], i);
      const float have = LoadElement(shape.type, &result[row * row_bytes], i);
      const bool copied = deltas[row] == 0 || i % shape.head_dim >= shape.rotated_dims;
      ASSERT_NEAR(have, want, copied ? 0.0F : Tolerance(shape.type, want))
          << "row " << row << " element " << i << " delta " << deltas[row];
    }
  }
}

TEST_F(RotateRowsTest, EqualsThePlainCodeInEveryShape) {
  std::mt19937 random(5);
  // Llama-3-8B, SmolLM2-135M, and what is odd.
  for (const auto& [heads, dim, rotated] : {std::array{8U, 128U, 128U},
                                            {3U, 64U, 64U},
                                            {1U, 128U, 128U},
                                            {2U, 80U, 32U},
                                            {1U, 6U, 6U},
                                            {3U, 33U, 20U},
                                            {2U, 40U, 0U}}) {
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32}) {
      for (const RopePairing pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
        for (const size_t offset : {0U, 4U}) {
          const RopeShape shape = {type, pairing, heads, dim, rotated, 500000.0};
          Compare(shape, {0, 1, -1, 31, 32, -32, 8191, 8192, -70000, 123456, -4000000, 4000001, 0},
                  16, offset, random);
        }
      }
    }
  }
}

TEST_F(RotateRowsTest, OneRowAndNoRow) {
  std::mt19937 random(6);
  const RopeShape shape = {RowType::kF16, RopePairing::kHalfSplit, 8, 128, 128, 10000.0};
  Compare(shape, {}, 1, 0, random);
  Compare(shape, {-17}, 1, 0, random);
}

// Rows past the end of the last block of threads.
TEST_F(RotateRowsTest, ManyRows) {
  std::mt19937 random(7);
  std::vector<int64_t> deltas(333);
  for (size_t i = 0; i < deltas.size(); ++i) {
    deltas[i] = -static_cast<int64_t>(i / 3);
  }
  Compare({RowType::kF16, RopePairing::kInterleaved, 3, 64, 64, 10000.0}, deltas, 1, 0, random);
}

TEST_F(RotateRowsTest, ArgumentsOutOfBoundsAreNamed) {
  EXPECT_EQ(MakeRopeNumbers(0, 64, 1).status().message(),
            "theta is no finite number above 0: theta=0");
  EXPECT_EQ(MakeRopeNumbers(1e4, 3, 1).status().message(),
            "rotated dims out of bounds: rotated_dims=3 max=65536 multiple_of=2");
  EXPECT_EQ(MakeRopeNumbers(1e4, 4, 5000).status().message(),
            "highs out of bounds: highs=5000 max=4096");
  RowRotation rotation = {.shape = {}, .rows = 1};
  EXPECT_EQ(CheckRowRotation(rotation).message(),
            "the table is of another shape: pairs=0 expected=32");
  rotation.table.pairs = 32;
  EXPECT_EQ(CheckRowRotation(rotation).message(), "a pointer is null: from");
  rotation.shape.rotated_dims = 66;
  EXPECT_EQ(CheckRowRotation(rotation).message(),
            "rotated dims out of bounds: rotated_dims=66 max=64 multiple_of=2");
  rotation.shape.kv_heads = 0;
  EXPECT_EQ(CheckRowRotation(rotation).message(),
            "kv heads out of bounds: kv_heads=0 min=1 max=4096");
}

}  // namespace
}  // namespace kvasir::kernels::cuda
