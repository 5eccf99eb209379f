// Our conversions against the toolkit's own, whose host forms need no GPU: every f16, bf16 and
// e4m3, and numbers of all sizes to them.
#include <bit>
#include <cmath>
#include <random>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <gtest/gtest.h>

#include "kernels/row_convert.h"

namespace kvasir::kernels::cuda {
namespace {

uint8_t ToolkitE4m3(float value) {
  return static_cast<uint8_t>(__nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3));
}

void CompareFrom(float value) {
  if (std::isnan(value)) {
    ASSERT_EQ(FloatToE4m3(value) & 0x7F, ToolkitE4m3(value) & 0x7F);
    return;
  }
  ASSERT_EQ(FloatToE4m3(value), ToolkitE4m3(value)) << value;
  ASSERT_EQ(FloatToF16(value), __half_raw(__float2half_rn(value)).x) << value;
  ASSERT_EQ(FloatToBf16(value), __nv_bfloat16_raw(__float2bfloat16_rn(value)).x) << value;
}

TEST(ToolkitTypesTest, EveryElementToFloat) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float toolkit = __half2float(__half(__half_raw{half}));
    const float ours = F16ToFloat(half);
    ASSERT_TRUE(std::isnan(ours)
                    ? std::isnan(toolkit)
                    : std::bit_cast<uint32_t>(ours) == std::bit_cast<uint32_t>(toolkit))
        << bits;
  }
  for (uint32_t bits = 0; bits <= 0xFF; ++bits) {
    const auto eighth = static_cast<uint8_t>(bits);
    const __half_raw half = __nv_cvt_fp8_to_halfraw(eighth, __NV_E4M3);
    const float toolkit = __half2float(__half(half));
    const float ours = E4m3ToFloat(eighth);
    ASSERT_TRUE(std::isnan(ours)
                    ? std::isnan(toolkit)
                    : std::bit_cast<uint32_t>(ours) == std::bit_cast<uint32_t>(toolkit))
        << bits;
  }
}

TEST(ToolkitTypesTest, NumbersOfAllSizesAndHalfWaysToElements) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const float value = F16ToFloat(static_cast<uint16_t>(bits));
    ASSERT_NO_FATAL_FAILURE(CompareFrom(value));
    ASSERT_NO_FATAL_FAILURE(CompareFrom(Bf16ToFloat(static_cast<uint16_t>(bits))));
    ASSERT_NO_FATAL_FAILURE(CompareFrom(std::nextafter(value, 0.0F)));
    ASSERT_NO_FATAL_FAILURE(CompareFrom(std::nextafter(value, INFINITY)));
  }
  std::mt19937 random(16);
  for (int i = 0; i < 1000000; ++i) {
    ASSERT_NO_FATAL_FAILURE(CompareFrom(std::bit_cast<float>(static_cast<uint32_t>(random()))));
  }
}

}  // namespace
}  // namespace kvasir::kernels::cuda
