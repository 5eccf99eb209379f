// Elements to float and back: every one of 8 and 16 bits, and what lies between neighbours.
#include "kernels/row_convert.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace kvasir::kernels {
namespace {

TEST(RowConvertTest, HalvesSurviveARoundTrip) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float half = F16ToFloat(bits);
    const float brain = Bf16ToFloat(bits);
    if (std::isnan(half)) {
      EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(half))));
    } else {
      ASSERT_EQ(FloatToF16(half), bits);
    }
    if (std::isnan(brain)) {
      EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(brain))));
    } else {
      ASSERT_EQ(FloatToBf16(brain), bits);
    }
  }
}

TEST(RowConvertTest, RoundsToTheNearestEven) {
  const float infinity = std::numeric_limits<float>::infinity();
  // Between neighbours i and i + 1: below the middle down, above up, the middle to the even one.
  for (uint16_t i = 0; i < 0x7BFF; ++i) {
    const auto up = static_cast<uint16_t>(i + 1);
    const float middle = (F16ToFloat(i) + F16ToFloat(up)) / 2;
    ASSERT_EQ(FloatToF16(middle), i % 2 == 0 ? i : up);
    ASSERT_EQ(FloatToF16(std::nextafter(middle, 0.0F)), i);
    ASSERT_EQ(FloatToF16(std::nextafter(middle, infinity)), up);
    ASSERT_EQ(FloatToF16(-middle), 0x8000 | (i % 2 == 0 ? i : up));
  }
  EXPECT_EQ(FloatToF16(65519.0F), 0x7BFF);
  EXPECT_EQ(FloatToF16(65520.0F), 0x7C00);
  EXPECT_EQ(FloatToF16(-infinity), 0xFC00);
  EXPECT_EQ(FloatToBf16(0x1.01p0F), 0x3F80);
  EXPECT_EQ(FloatToBf16(0x1.03p0F), 0x3F82);
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::max()), 0x7F80);
}

// Every value there is, and the numbers half way between two of them.
TEST(RowConvertTest, E4m3IsExactToFloatAndBackRoundsToTheNearestEven) {
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
  // The number behind the largest would be 480: half way to it and beyond, too, there is no other.
  EXPECT_EQ(FloatToE4m3(464.0F), 0x7E);
  EXPECT_EQ(FloatToE4m3(-479.0F), 0xFE);
  EXPECT_EQ(FloatToE4m3(-0.0F), 0x80);
  EXPECT_EQ(FloatToE4m3(std::numeric_limits<float>::quiet_NaN()), 0x7F);
  EXPECT_EQ(FloatToE4m3(-std::numeric_limits<float>::quiet_NaN()), 0x7F);
}

TEST(RowConvertTest, ElementsOfARowAreWhereTheirSizeSays) {
  for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
    std::byte row[17] = {};
    const size_t count = (sizeof row - 1) / ElementBytes(type);
    for (size_t i = 0; i < count; ++i) {
      StoreElement(type, row + 1, i, static_cast<float>(i));
    }
    EXPECT_EQ(row[0], std::byte{});
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(LoadElement(type, row + 1, i), static_cast<float>(i));
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels
