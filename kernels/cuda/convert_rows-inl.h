// What a thread of ConvertRows() does: eight elements.
#ifndef KVASIR_KERNELS_CUDA_CONVERT_ROWS_INL_H_
#define KVASIR_KERNELS_CUDA_CONVERT_ROWS_INL_H_

#include <cstdint>

#include "kernels/cuda/convert_rows.h"
#include "kernels/cuda/e4m3.h"
#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"

#ifdef __CUDACC__
#include <cuda_fp8.h>
#endif

namespace kvasir::kernels::cuda {

KVASIR_HOST_DEVICE inline uint64_t ConvertChunks(const RowConversion& conversion) {
  return conversion.rows * CeilDivide(conversion.elements, 8);
}

KVASIR_HOST_DEVICE constexpr RowType RowTypeOf(ElementType type) {
  return type == ElementType::kBF16  ? RowType::kBF16
         : type == ElementType::kF32 ? RowType::kF32
                                     : RowType::kF16;
}

KVASIR_HOST_DEVICE constexpr uint64_t BytesOf(ElementType type) {
  return type == ElementType::kE4M3 ? 1 : ElementBytes(RowTypeOf(type));
}

KVASIR_HOST_DEVICE inline uint8_t ToE4m3(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);  // an instruction there
#else
  return FloatToE4m3(value);
#endif
}

// Eight bytes that lie on a multiple of eight come and go as two words.
KVASIR_HOST_DEVICE inline Eight LoadEighths(const std::byte* at, uint32_t count) {
  Eight eight = {};
  uint32_t words[2] = {};
  if (count >= 8 && reinterpret_cast<uintptr_t>(at) % 8 == 0) {
#ifdef __CUDA_ARCH__
    const uint2 both = __ldcs(reinterpret_cast<const uint2*>(at));
    words[0] = both.x;
    words[1] = both.y;
#else
    std::memcpy(words, at, sizeof words);
#endif
  } else {
    KVASIR_DEVICE_UNROLL
    for (uint32_t i = 0; i < 8; ++i) {
      words[i / 4] |= i < count ? static_cast<uint32_t>(at[i]) << (i % 4 * 8) : 0U;
    }
  }
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    eight.x[i] = E4m3ToFloat(static_cast<uint8_t>(words[i / 4] >> (i % 4 * 8) & 0xFFU));
  }
  return eight;
}

KVASIR_HOST_DEVICE inline void StoreEighths(std::byte* at, uint32_t count, const Eight& eight) {
  uint32_t words[2] = {};
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    words[i / 4] |= static_cast<uint32_t>(ToE4m3(eight.x[i])) << (i % 4 * 8);
  }
  if (count >= 8 && reinterpret_cast<uintptr_t>(at) % 8 == 0) {
#ifdef __CUDA_ARCH__
    __stcs(reinterpret_cast<uint2*>(at), make_uint2(words[0], words[1]));
#else
    std::memcpy(at, words, sizeof words);
#endif
    return;
  }
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    if (i < count) {
      at[i] = static_cast<std::byte>(words[i / 4] >> (i % 4 * 8) & 0xFFU);
    }
  }
}

// The types are those of the conversion, where the compiler knows them.
KVASIR_HOST_DEVICE inline void ConvertThread(const RowConversion& conversion, ElementType from_type,
                                             ElementType to_type, uint64_t block, uint32_t thread) {
  const uint64_t chunks = CeilDivide(conversion.elements, 8);
  const uint64_t item = block * kThreads + thread;
  const uint64_t row = item / chunks;
  if (row >= conversion.rows) {
    return;
  }
  const uint64_t at = (item - row * chunks) * 8;
  const uint64_t left = conversion.elements - at;
  const uint32_t count = left < 8 ? static_cast<uint32_t>(left) : 8;
  const std::byte* from = conversion.from.At(row) + at * BytesOf(from_type);
  std::byte* to = conversion.to.At(row) + at * BytesOf(to_type);
  Eight eight = from_type == ElementType::kE4M3 ? LoadEighths(from, count)
                                                : LoadEight(RowTypeOf(from_type), from, count);
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    eight.x[i] *= conversion.scale;
  }
  if (to_type == ElementType::kE4M3) {
    StoreEighths(to, count, eight);
  } else {
    StoreEight(RowTypeOf(to_type), to, count, eight);
  }
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_CONVERT_ROWS_INL_H_
