// Vector stores of floats as row elements. Included once per Highway target, hence the toggled
// guard.
#if defined(KVASIR_KERNELS_ROW_STORE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ROW_STORE_INL_H_
#undef KVASIR_KERNELS_ROW_STORE_INL_H_
#else
#define KVASIR_KERNELS_ROW_STORE_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

// One vector as elements of type T, not float, rounded to the nearest even.
template <class T>
HWY_INLINE auto Narrow(FloatVec value) {
  const hn::Rebind<uint16_t, FloatTag> narrow;
  if constexpr (std::is_same_v<T, hwy::float16_t>) {
    return hn::BitCast(narrow, hn::DemoteTo(hn::Rebind<T, FloatTag>(), value));
  } else {
    // Highway's own conversion to bfloat16 cuts the low bits off.
    const hn::RebindToUnsigned<FloatTag> du;
    const hn::RebindToSigned<FloatTag> di;
    const auto raw = hn::BitCast(du, value);
    const auto high = hn::ShiftRight<16>(raw);
    const auto odd = hn::And(high, hn::Set(du, 1U));
    const auto rounded = hn::ShiftRight<16>(hn::Add(raw, hn::Add(odd, hn::Set(du, 0x7FFFU))));
    const auto nan = hn::RebindMask(du, hn::Ne(value, value));
    const auto quiet = hn::Or(high, hn::Set(du, 0x40U));
    return hn::DemoteTo(narrow, hn::BitCast(di, hn::IfThenElse(nan, quiet, rounded)));
  }
}

// Stores two vectors as elements of type T, the narrow ones at once: a cache line written past the
// caches in pieces is slow.
template <class T, bool kStream>
HWY_INLINE void StorePair(FloatVec low, FloatVec high, std::byte* at) {
  if constexpr (std::is_same_v<T, float>) {
    const FloatTag d;
    auto* to = reinterpret_cast<float*>(at);
    if constexpr (kStream) {
      hn::Stream(low, d, to);
      hn::Stream(high, d, to + kLanes);
    } else {
      hn::StoreU(low, d, to);
      hn::StoreU(high, d, to + kLanes);
    }
  } else {
    const hn::CappedTag<uint16_t, 2 * kLanes> wide;
    const auto both = hn::Combine(wide, Narrow<T>(high), Narrow<T>(low));
    auto* to = reinterpret_cast<uint16_t*>(at);
    if constexpr (kStream) {
      hn::Stream(both, wide, to);
    } else {
      hn::StoreU(both, wide, to);
    }
  }
}

// One vector, never past the caches.
template <class T>
HWY_INLINE void StoreOne(FloatVec value, std::byte* at) {
  if constexpr (std::is_same_v<T, float>) {
    hn::StoreU(value, FloatTag(), reinterpret_cast<float*>(at));
  } else {
    hn::StoreU(Narrow<T>(value), hn::Rebind<uint16_t, FloatTag>(), reinterpret_cast<uint16_t*>(at));
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ROW_STORE_INL_H_
