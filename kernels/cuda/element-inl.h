// Loads and stores of 16 bytes and of eight elements, on host and device.
//
// On the device elements are converted by its instructions: the values of row_convert.h, but a NaN
// that is stored has the device's payload. e4m3 comes and goes by 8 bytes, as bits that are
// shifted; to it GPUs of compute capability 8.9 and above have an instruction.
#ifndef KVASIR_KERNELS_CUDA_ELEMENT_INL_H_
#define KVASIR_KERNELS_CUDA_ELEMENT_INL_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/host_device.h"
#include "kernels/row_convert.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#endif

namespace kvasir::kernels::cuda {

inline constexpr uint32_t kUnit = 16;  // bytes of the widest load

struct alignas(kUnit) Unit {
  uint32_t words[4];
};
struct alignas(kUnit / 2) HalfUnit {
  uint32_t words[2];
};

KVASIR_HOST_DEVICE inline bool IsAligned(const void* at, uint32_t to = kUnit) {
  return reinterpret_cast<uintptr_t>(at) % to == 0;
}

// Rows pass through once: they need not stay in a cache that tables and indices live in.
// REQUIRES: IsAligned(at).
KVASIR_HOST_DEVICE inline Unit LoadUnit(const std::byte* at) {
  Unit unit;
#ifdef __CUDA_ARCH__
  const uint4 words = __ldcs(reinterpret_cast<const uint4*>(at));
  unit = {{words.x, words.y, words.z, words.w}};
#else
  std::memcpy(&unit, at, sizeof unit);
#endif
  return unit;
}

KVASIR_HOST_DEVICE inline void StoreUnit(std::byte* at, const Unit& unit) {
#ifdef __CUDA_ARCH__
  __stcs(reinterpret_cast<uint4*>(at),
         make_uint4(unit.words[0], unit.words[1], unit.words[2], unit.words[3]));
#else
  std::memcpy(at, &unit, sizeof unit);
#endif
}

// REQUIRES: IsAligned(at, kUnit / 2).
KVASIR_HOST_DEVICE inline HalfUnit LoadHalfUnit(const std::byte* at) {
  HalfUnit half;
#ifdef __CUDA_ARCH__
  const uint2 words = __ldcs(reinterpret_cast<const uint2*>(at));
  half = {{words.x, words.y}};
#else
  std::memcpy(&half, at, sizeof half);
#endif
  return half;
}

KVASIR_HOST_DEVICE inline void StoreHalfUnit(std::byte* at, const HalfUnit& half) {
#ifdef __CUDA_ARCH__
  __stcs(reinterpret_cast<uint2*>(at), make_uint2(half.words[0], half.words[1]));
#else
  std::memcpy(at, &half, sizeof half);
#endif
}

// Any alignment.
KVASIR_HOST_DEVICE inline void CopyBytes(const std::byte* from, std::byte* to, size_t bytes) {
  size_t at = 0;
  if (IsAligned(from) && IsAligned(to)) {
    for (; at + kUnit <= bytes; at += kUnit) {
      StoreUnit(to + at, LoadUnit(from + at));
    }
  }
  if (IsAligned(from, kUnit / 2) && IsAligned(to, kUnit / 2)) {
    for (; at + kUnit / 2 <= bytes; at += kUnit / 2) {
      StoreHalfUnit(to + at, LoadHalfUnit(from + at));
    }
  }
  for (; at < bytes; ++at) {
    to[at] = from[at];
  }
}

KVASIR_HOST_DEVICE inline float HalfBits(RowType type, uint16_t bits) {
#ifdef __CUDA_ARCH__
  return type == RowType::kF16 ? __half2float(__ushort_as_half(bits)) : Bf16ToFloat(bits);
#else
  return type == RowType::kF16 ? F16ToFloat(bits) : Bf16ToFloat(bits);
#endif
}

KVASIR_HOST_DEVICE inline uint16_t ToHalfBits(RowType type, float value) {
#ifdef __CUDA_ARCH__
  return type == RowType::kF16 ? __half_as_ushort(__float2half_rn(value))
                               : __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  return type == RowType::kF16 ? FloatToF16(value) : FloatToBf16(value);
#endif
}

KVASIR_HOST_DEVICE inline uint8_t ToE4m3(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
#else
  return FloatToE4m3(value);
#endif
}

// Up to eight elements, zeros behind them.
struct Eight {
  float x[8];
};

KVASIR_HOST_DEVICE inline Eight LoadEighths(const std::byte* at, uint32_t count) {
  HalfUnit half = {};
  if (count >= 8 && IsAligned(at, kUnit / 2)) {
    half = LoadHalfUnit(at);
  } else {
    KVASIR_DEVICE_UNROLL
    for (uint32_t i = 0; i < 8; ++i) {
      half.words[i / 4] |= i < count ? static_cast<uint32_t>(at[i]) << (i % 4 * 8) : 0U;
    }
  }
  Eight eight = {};
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    eight.x[i] = E4m3ToFloat(static_cast<uint8_t>(half.words[i / 4] >> (i % 4 * 8) & 0xFFU));
  }
  return eight;
}

KVASIR_HOST_DEVICE inline void StoreEighths(std::byte* at, uint32_t count, const Eight& eight) {
  HalfUnit half = {};
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    half.words[i / 4] |= static_cast<uint32_t>(ToE4m3(eight.x[i])) << (i % 4 * 8);
  }
  if (count >= 8 && IsAligned(at, kUnit / 2)) {
    StoreHalfUnit(at, half);
    return;
  }
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    if (i < count) {
      at[i] = static_cast<std::byte>(half.words[i / 4] >> (i % 4 * 8) & 0xFFU);
    }
  }
}

KVASIR_HOST_DEVICE inline Eight LoadEight(RowType type, const std::byte* at, uint32_t count) {
  if (type == RowType::kE4M3) {
    return LoadEighths(at, count);
  }
  Eight eight = {};
  if (count >= 8 && IsAligned(at)) {
    const Unit first = LoadUnit(at);
    if (type == RowType::kF32) {
      const Unit second = LoadUnit(at + kUnit);
      KVASIR_DEVICE_UNROLL
      for (uint32_t i = 0; i < 4; ++i) {
        eight.x[i] = std::bit_cast<float>(first.words[i]);
        eight.x[i + 4] = std::bit_cast<float>(second.words[i]);
      }
      return eight;
    }
    KVASIR_DEVICE_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      eight.x[2 * i] = HalfBits(type, static_cast<uint16_t>(first.words[i] & 0xFFFFU));
      eight.x[2 * i + 1] = HalfBits(type, static_cast<uint16_t>(first.words[i] >> 16U));
    }
    return eight;
  }
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    eight.x[i] = i < count ? LoadElement(type, at, i) : 0.0F;
  }
  return eight;
}

KVASIR_HOST_DEVICE inline void StoreEight(RowType type, std::byte* at, uint32_t count,
                                          const Eight& eight) {
  if (type == RowType::kE4M3) {
    return StoreEighths(at, count, eight);
  }
  if (count >= 8 && IsAligned(at)) {
    Unit first = {};
    if (type == RowType::kF32) {
      Unit second = {};
      KVASIR_DEVICE_UNROLL
      for (uint32_t i = 0; i < 4; ++i) {
        first.words[i] = std::bit_cast<uint32_t>(eight.x[i]);
        second.words[i] = std::bit_cast<uint32_t>(eight.x[i + 4]);
      }
      StoreUnit(at + kUnit, second);
    } else {
      KVASIR_DEVICE_UNROLL
      for (uint32_t i = 0; i < 4; ++i) {
        first.words[i] = ToHalfBits(type, eight.x[2 * i]) |
                         static_cast<uint32_t>(ToHalfBits(type, eight.x[2 * i + 1])) << 16U;
      }
    }
    StoreUnit(at, first);
    return;
  }
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    if (i < count) {
      StoreElement(type, at, i, eight.x[i]);
    }
  }
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ELEMENT_INL_H_
