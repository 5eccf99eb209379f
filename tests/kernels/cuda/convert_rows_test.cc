// Conversions against the plain code.
#include "kernels/cuda/convert_rows.h"

#include <cmath>

#include "tests/kernels/cuda/machine.h"
#include "tests/kernels/cuda/random.h"

namespace kvasir::kernels::cuda {
namespace {

using machine::Array;
using machine::Execute;
using ConvertRowsTest = machine::Test;

constexpr RowType kTypes[] = {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3};

TEST_F(ConvertRowsTest, EqualsThePlainCodeBitForBitFromEachTypeToEach) {
  std::mt19937 random(15);
  std::normal_distribution<float> normal(0.0F, 200.0F);
  for (const RowType from : kTypes) {
    for (const RowType to : kTypes) {
      for (const size_t elements : {1U, 7U, 8U, 192U, 1029U}) {
        for (const size_t rows : {0U, 1U, 33U}) {
          const float scale = elements % 2 == 0 ? 1.0F : 0.37F;
          std::vector<std::byte> numbers(20 * elements * ElementBytes(from));
          for (size_t i = 0; i < 20 * elements; ++i) {
            StoreElement(from, numbers.data(), i, normal(random));
          }
          const auto picked = RandomIndices(rows, 20, random);
          const Array pool(numbers, elements == 192 ? 4 : 0);
          const Array indices(picked);
          const Array got(std::vector<std::byte>(rows * elements * ElementBytes(to)));
          RowConversion conversion = {.from_type = from, .to_type = to};
          conversion.from = {.base = pool.bytes(),
                             .stride = elements * ElementBytes(from),
                             .indices = indices.data()};
          conversion.to = {.base = got.bytes(), .stride = elements * ElementBytes(to)};
          conversion.rows = rows;
          conversion.elements = elements;
          conversion.scale = scale;
          ASSERT_TRUE(Execute(conversion).ok());
          std::vector<std::byte> want(rows * elements * ElementBytes(to));
          for (size_t row = 0; row < rows; ++row) {
            for (size_t i = 0; i < elements; ++i) {
              const float x = LoadElement(from, numbers.data(), picked[row] * elements + i);
              StoreElement(to, want.data(), row * elements + i, x * scale);
            }
          }
          ASSERT_EQ(got.Read(), want) << int(from) << " to " << int(to) << ", " << elements;
        }
      }
    }
  }
}

TEST_F(ConvertRowsTest, ArgumentsOutOfBoundsAreNamed) {
  EXPECT_EQ(CheckRowConversion({.elements = 0}).message(),
            "elements out of bounds: elements=0 min=1 max=268435456");
  EXPECT_EQ(CheckRowConversion({.to_type = static_cast<RowType>(4)}).message(),
            "row type unknown: type=4 max=3");
  EXPECT_EQ(CheckRowConversion({.elements = 1, .scale = INFINITY}).message(),
            "scale is no finite number: scale=inf");
  EXPECT_EQ(CheckRowConversion({.rows = 1, .elements = 1}).message(), "a pointer is null: from");
}

}  // namespace
}  // namespace kvasir::kernels::cuda
