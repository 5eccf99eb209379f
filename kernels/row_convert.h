// Row elements to and from float, one at a time: for scalar code, packing and tails.
//
// To float is exact. From float rounds to the nearest, ties to even; overflow goes to infinity, of
// e4m3, which has none, to the largest number; NaN stays NaN. Pure functions, a few instructions
// each.
#ifndef KVASIR_KERNELS_ROW_CONVERT_H_
#define KVASIR_KERNELS_ROW_CONVERT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/attention.h"
#include "kernels/host_device.h"

namespace kvasir::kernels {

// Bytes of one element.
KVASIR_HOST_DEVICE constexpr size_t ElementBytes(RowType type) {
  return type == RowType::kF32 ? 4 : type == RowType::kE4M3 ? 1 : 2;
}

KVASIR_HOST_DEVICE inline float F16ToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16U;
  const uint32_t magnitude = half & 0x7FFFU;
  if (magnitude >= 0x7C00U) {  // infinity and NaN keep their mantissa bits
    return std::bit_cast<float>(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13U));
  }
  // 2^112 moves the half's exponent bias (15) to the float's (127), subnormals included.
  const float scaled = std::bit_cast<float>(magnitude << 13U) * 0x1p112F;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

KVASIR_HOST_DEVICE inline uint16_t FloatToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16U) & 0x8000U);
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  uint32_t half = 0;
  if (magnitude > 0x7F800000U) {
    half = 0x7E00U | ((magnitude >> 13U) & 0x3FFU);
  } else if (magnitude >= 0x477FF000U) {  // 65520, the first value that rounds to infinity
    half = 0x7C00U;
  } else if (magnitude < 0x38800000U) {  // below 2^-14: let the float adder round at 2^-24
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000U;
  } else {
    half = (magnitude - 0x38000000U + 0xFFFU + ((magnitude >> 13U) & 1U)) >> 13U;
  }
  return static_cast<uint16_t>(sign | half);
}

KVASIR_HOST_DEVICE inline float Bf16ToFloat(uint16_t brain) {
  return std::bit_cast<float>(static_cast<uint32_t>(brain) << 16U);
}

KVASIR_HOST_DEVICE inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
    return static_cast<uint16_t>((bits >> 16U) | 0x40U);
  }
  return static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

KVASIR_HOST_DEVICE inline float E4m3ToFloat(uint8_t eighth) {
  const uint32_t sign = (eighth & 0x80U) << 24U;
  const uint32_t magnitude = eighth & 0x7FU;
  if (magnitude == 0x7FU) {
    return std::bit_cast<float>(sign | 0x7FC00000U);
  }
  // 2^120 moves the exponent's bias from 7 to 127, subnormals included.
  const float scaled = std::bit_cast<float>(magnitude << 20U) * 0x1p120F;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

// Every NaN becomes 0x7F, as on GPUs that have an instruction for it.
KVASIR_HOST_DEVICE inline uint8_t FloatToE4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 24U) & 0x80U;
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) {
    return 0x7F;
  }
  uint32_t eighth = 0;
  if (magnitude >= 0x43E00000U) {  // 448
    eighth = 0x7E;
  } else if (magnitude < 0x3C800000U) {  // below 2^-6: let the float adder round at 2^-9
    eighth = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F) - 0x46800000U;
  } else {
    eighth = (magnitude - 0x3C000000U + 0x7FFFFU + ((magnitude >> 20U) & 1U)) >> 20U;
  }
  return static_cast<uint8_t>(sign | eighth);
}

// Element `index` of the row at `row`; any alignment.
KVASIR_HOST_DEVICE inline float LoadElement(RowType type, const std::byte* row, size_t index) {
  if (type == RowType::kF32) {
    float value = 0;
    std::memcpy(&value, row + index * 4, sizeof value);
    return value;
  }
  if (type == RowType::kE4M3) {
    return E4m3ToFloat(static_cast<uint8_t>(row[index]));
  }
  uint16_t bits = 0;
  std::memcpy(&bits, row + index * 2, sizeof bits);
  return type == RowType::kF16 ? F16ToFloat(bits) : Bf16ToFloat(bits);
}

KVASIR_HOST_DEVICE inline void StoreElement(RowType type, std::byte* row, size_t index,
                                            float value) {
  if (type == RowType::kF32) {
    std::memcpy(row + index * 4, &value, sizeof value);
    return;
  }
  if (type == RowType::kE4M3) {
    row[index] = static_cast<std::byte>(FloatToE4m3(value));
    return;
  }
  const uint16_t bits = type == RowType::kF16 ? FloatToF16(value) : FloatToBf16(value);
  std::memcpy(row + index * 2, &bits, sizeof bits);
}

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ROW_CONVERT_H_
