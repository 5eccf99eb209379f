// What a thread of DotKeys() does: a warp has a key, a thread every 32nd eight of its elements.
#ifndef KVASIR_KERNELS_CUDA_DOT_KEYS_INL_H_
#define KVASIR_KERNELS_CUDA_DOT_KEYS_INL_H_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/dot_keys.h"
#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"

namespace kvasir::kernels::cuda {

inline constexpr uint32_t kWarp = 32;
inline constexpr uint32_t kDotRows = kThreads / kWarp;  // of a block

// The share of one lane. The caller adds those of all lanes: that of lane i to that of lane
// i + 16, then 8, 4, 2, 1.
KVASIR_HOST_DEVICE inline float DotLane(const KeyDots& dots, RowType type, uint64_t row,
                                        uint32_t lane) {
  const uint32_t elements = dots.shape.kv_heads * dots.shape.dim;
  const std::byte* key = dots.keys.At(row);
  float sum = 0;
  for (uint32_t at = lane * 8; at < elements; at += kWarp * 8) {
    const Eight eight = LoadEight(type, key + uint64_t{at} * ElementBytes(type), elements - at);
    for (uint32_t i = 0; i < 8; ++i) {
      sum = at + i < elements ? std::fma(dots.q[at + i], eight.x[i], sum) : sum;
    }
  }
  return sum;
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_DOT_KEYS_INL_H_
