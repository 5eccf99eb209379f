// Conversions against the plain code, and all values of e4m3.
#include "kernels/cuda/convert_rows.h"

#include <cmath>
#include <limits>

#include "kernels/cuda/e4m3.h"
#include "tests/kernels/cuda/machine.h"
#include "tests/kernels/cuda/random.h"

namespace kvasir::kernels::cuda {
namespace {

using machine::Array;
using machine::Execute;
using ConvertRowsTest = machine::Test;
using E4m3Test = machine::Test;

RowType RowTypeFor(ElementType type) {
  return type == ElementType::kBF16  ? RowType::kBF16
         : type == ElementType::kF32 ? RowType::kF32
                                     : RowType::kF16;
}

size_t SizeOf(ElementType type) {
  return type == ElementType::kE4M3 ? 1 : ElementBytes(RowTypeFor(type));
}

float Load(ElementType type, const std::byte* row, size_t index) {
  return type == ElementType::kE4M3 ? E4m3ToFloat(static_cast<uint8_t>(row[index]))
                                    : LoadElement(RowTypeFor(type), row, index);
}

void Store(ElementType type, std::byte* row, size_t index, float value) {
  if (type == ElementType::kE4M3) {
    row[index] = static_cast<std::byte>(FloatToE4m3(value));
  } else {
    StoreElement(RowTypeFor(type), row, index, value);
  }
}

constexpr ElementType kTypes[] = {ElementType::kF16, ElementType::kBF16, ElementType::kF32,
                                  ElementType::kE4M3};

TEST_F(ConvertRowsTest, EqualsThePlainCodeBitForBitFromEachTypeToEach) {
  std::mt19937 random(15);
  std::normal_distribution<float> normal(0.0F, 200.0F);
  for (const ElementType from : kTypes) {
    for (const ElementType to : kTypes) {
      for (const size_t elements : {1U, 7U, 8U, 192U, 1029U}) {
        for (const size_t rows : {0U, 1U, 33U}) {
          const float scale = elements % 2 == 0 ? 1.0F : 0.37F;
          std::vector<std::byte> numbers(20 * elements * SizeOf(from));
          for (size_t i = 0; i < 20 * elements; ++i) {
            Store(from, numbers.data(), i, normal(random));
          }
          const auto picked = RandomIndices(rows, 20, random);
          const Array pool(numbers, elements == 192 ? 4 : 0);
          const Array indices(picked);
          const Array got(std::vector<std::byte>(rows * elements * SizeOf(to)));
          RowConversion conversion = {.from_type = from, .to_type = to};
          conversion.from = {
              .base = pool.bytes(), .stride = elements * SizeOf(from), .indices = indices.data()};
          conversion.to = {.base = got.bytes(), .stride = elements * SizeOf(to)};
          conversion.rows = rows;
          conversion.elements = elements;
          conversion.scale = scale;
          ASSERT_TRUE(Execute(conversion).ok());
          std::vector<std::byte> want(rows * elements * SizeOf(to));
          for (size_t row = 0; row < rows; ++row) {
            for (size_t i = 0; i < elements; ++i) {
              const float x = Load(from, numbers.data(), picked[row] * elements + i);
              Store(to, want.data(), row * elements + i, x * scale);
            }
          }
          ASSERT_EQ(got.Read(), want) << int(from) << " to " << int(to) << ", " << elements;
        }
      }
    }
  }
}

// Every value there is, and the numbers half way between two of them.
TEST_F(E4m3Test, ToFloatIsExactAndBackRoundsToTheNearestEven) {
  EXPECT_EQ(E4m3ToFloat(0x7E), 448.0F);
  EXPECT_EQ(E4m3ToFloat(0x08), 0x1p-6F);
  EXPECT_EQ(E4m3ToFloat(0x01), 0x1p-9F);
  EXPECT_EQ(E4m3ToFloat(0x38), 1.0F);
  EXPECT_TRUE(std::isnan(E4m3ToFloat(0x7F)));
  EXPECT_TRUE(std::isnan(E4m3ToFloat(0xFF)));
  for (uint32_t code = 0; code < 0x7F; ++code) {
    const auto at = static_cast<uint8_t>(code);
    const auto negative = static_cast<uint8_t>(code | 0x80U);
    EXPECT_EQ(FloatToE4m3(E4m3ToFloat(at)), at);
    EXPECT_EQ(FloatToE4m3(E4m3ToFloat(negative)), negative);
    if (code < 0x7E) {
      const float above = E4m3ToFloat(static_cast<uint8_t>(code + 1));
      const float half = (E4m3ToFloat(at) + above) / 2;
      EXPECT_EQ(FloatToE4m3(half), code % 2 == 0 ? code : code + 1) << code;
      EXPECT_EQ(FloatToE4m3(std::nextafter(half, 0.0F)), code);
      EXPECT_EQ(FloatToE4m3(std::nextafter(half, 1e9F)), code + 1);
    }
  }
  EXPECT_EQ(FloatToE4m3(1e9F), 0x7E);
  EXPECT_EQ(FloatToE4m3(-std::numeric_limits<float>::infinity()), 0xFE);
  EXPECT_EQ(FloatToE4m3(std::numeric_limits<float>::quiet_NaN()), 0x7F);
}

TEST_F(ConvertRowsTest, ArgumentsOutOfBoundsAreNamed) {
  EXPECT_EQ(CheckRowConversion({.elements = 0}).message(),
            "elements out of bounds: elements=0 min=1 max=268435456");
  EXPECT_EQ(CheckRowConversion({.elements = 1, .scale = INFINITY}).message(),
            "scale is no finite number: scale=inf");
  EXPECT_EQ(CheckRowConversion({.rows = 1, .elements = 1}).message(), "a pointer is null: from");
}

}  // namespace
}  // namespace kvasir::kernels::cuda
