// One fp8 element (e4m3, as OCP and CUDA have it: no infinity, 448 the largest) to and from float.
//
// To float is exact. From float rounds to the nearest, ties to even; what is larger becomes the
// largest; NaN stays NaN. Pure.
#ifndef KVASIR_KERNELS_CUDA_E4M3_H_
#define KVASIR_KERNELS_CUDA_E4M3_H_

#include <bit>
#include <cstdint>

#include "kernels/host_device.h"

namespace kvasir::kernels::cuda {

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

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_E4M3_H_
