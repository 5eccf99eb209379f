// Scores and weights of a softmax that keep NaN, which the operations of Highway lose. Included
// once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_SOFTMAX_INL_H_
#undef KVASIR_KERNELS_SOFTMAX_INL_H_
#else
#define KVASIR_KERNELS_SOFTMAX_INL_H_
#endif

#include <limits>

#include "kernels/row_load-inl.h"

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

// What is above the largest float counts as that: infinity would make every weight NaN.
HWY_INLINE FloatVec Limited(FloatVec score) {
  // In this order: x86 takes the second where one is NaN.
  return hn::Min(hn::Set(FloatTag(), std::numeric_limits<float>::max()), score);
}

HWY_INLINE FloatVec ExpOf(FloatVec x) {
  return hn::IfThenElse(hn::Eq(x, x), hn::Exp(FloatTag(), x), x);
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_SOFTMAX_INL_H_
