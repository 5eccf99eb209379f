// Vector loads of row elements as float. Included once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_ROW_LOAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ROW_LOAD_INL_H_
#undef KVASIR_KERNELS_ROW_LOAD_INL_H_
#else
#define KVASIR_KERNELS_ROW_LOAD_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/attention.h"

#include <hwy/highway.h>

// Before a loop over an array of vectors: unrolled early enough that the array lives in registers.
#undef KVASIR_UNROLL
#if HWY_COMPILER_CLANG
#define KVASIR_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KVASIR_UNROLL _Pragma("GCC unroll 8")
#endif

#undef KVASIR_VECTOR_TARGET
// Vector code needs 8 lanes and a float16 conversion: the fallback target runs the scalar
// functions.
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
#define KVASIR_VECTOR_TARGET 1
#else
#define KVASIR_VECTOR_TARGET 0
#endif

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if KVASIR_VECTOR_TARGET
using FloatTag = hn::CappedTag<float, 16>;
using FloatVec = hn::Vec<FloatTag>;
constexpr size_t kLanes = hn::MaxLanes(FloatTag());

// One vector of elements of type T (hwy::float16_t, hwy::bfloat16_t, float) at any address.
template <class T>
HWY_INLINE FloatVec LoadRow(const std::byte* at) {
  const FloatTag d;
  if constexpr (std::is_same_v<T, float>) {
    return hn::LoadU(d, reinterpret_cast<const float*>(at));
  } else {
    const hn::Rebind<T, FloatTag> narrow;
    return hn::PromoteTo(d, hn::LoadU(narrow, reinterpret_cast<const T*>(at)));
  }
}

// Two vectors of elements of type T, of one load where the elements are narrow: a pass over memory
// goes faster by whole cache lines.
template <class T>
HWY_INLINE void LoadPair(const std::byte* at, FloatVec& low, FloatVec& high) {
  const FloatTag d;
  if constexpr (std::is_same_v<T, float>) {
    low = LoadRow<T>(at);
    high = LoadRow<T>(at + kLanes * sizeof(T));
  } else {
    const hn::CappedTag<uint16_t, 2 * kLanes> wide;
    const hn::Half<decltype(wide)> half;
    const hn::Rebind<T, FloatTag> narrow;
    const auto both = hn::LoadU(wide, reinterpret_cast<const uint16_t*>(at));
    low = hn::PromoteTo(d, hn::BitCast(narrow, hn::LowerHalf(half, both)));
    high = hn::PromoteTo(d, hn::BitCast(narrow, hn::UpperHalf(half, both)));
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ROW_LOAD_INL_H_
