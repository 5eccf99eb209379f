// Scores as integers, for selections by digits. Pure.
#ifndef KVASIR_KERNELS_SCORE_ORDER_H_
#define KVASIR_KERNELS_SCORE_ORDER_H_

#include <bit>
#include <cstdint>

#include "kernels/host_device.h"

namespace kvasir::kernels {

// Unsigned integers in the order of the floats; -0 is 0.
KVASIR_HOST_DEVICE inline uint32_t OrderOf(float score) {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0F);
  return (bits >> 31U) != 0 ? ~bits : bits | 0x80000000U;
}

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_SCORE_ORDER_H_
