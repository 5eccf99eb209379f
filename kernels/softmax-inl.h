// The online softmax of a tile, and scores and weights that keep NaN, which the operations of
// Highway lose. Included once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_SOFTMAX_INL_H_
#undef KVASIR_KERNELS_SOFTMAX_INL_H_
#else
#define KVASIR_KERNELS_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
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

// Scores of one query head for `rows` rows, a multiple of kLanes, -> its weights of the rows
// [first, last), 0 for the others. Moves its maximum and its sum on; returns the factor for what
// was accumulated before.
HWY_INLINE float Softmax(float* weights, size_t rows, size_t first, size_t last, float scale,
                         float& max, float& sum) {
  const FloatTag d;
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  std::fill(weights, weights + first, kNever);
  std::fill(weights + last, weights + rows, kNever);
  const FloatVec factor = hn::Set(d, scale);
  const FloatVec most = hn::Set(d, std::numeric_limits<float>::max());
  const size_t begin = first / kLanes * kLanes;
  FloatVec top = hn::Set(d, max);
  for (size_t row = begin; row < last; row += kLanes) {
    // +infinity would make the weights NaN; -infinity is fine, its weight is zero.
    const FloatVec score = hn::Min(hn::Mul(hn::Load(d, weights + row), factor), most);
    hn::Store(score, d, weights + row);
    top = hn::Max(top, score);
  }
  const float before = max;
  max = hn::GetLane(hn::MaxOfLanes(d, top));
  const float keep = max == before ? 1.0F : std::exp(before - max);
  const FloatVec shift = hn::Set(d, max);
  FloatVec total = hn::Zero(d);
  std::fill(weights, weights + begin, 0.0F);
  size_t row = begin;
  for (; row < last; row += kLanes) {
    const FloatVec weight = hn::Exp(d, hn::Sub(hn::Load(d, weights + row), shift));
    hn::Store(weight, d, weights + row);
    total = hn::Add(total, weight);
  }
  std::fill(weights + std::min(row, rows), weights + rows, 0.0F);
  sum = sum * keep + hn::GetLane(hn::SumOfLanes(d, total));
  return keep;
}

#else   // !KVASIR_VECTOR_TARGET

// The same without vectors.
inline float Softmax(float* weights, size_t rows, size_t first, size_t last, float scale,
                     float& max, float& sum) {
  const float before = max;
  for (size_t row = first; row < last; ++row) {
    weights[row] = std::min(weights[row] * scale, std::numeric_limits<float>::max());
    max = std::max(max, weights[row]);
  }
  const float keep = std::exp(before - max);
  sum *= keep;
  for (size_t row = 0; row < rows; ++row) {
    weights[row] = row < first || row >= last ? 0.0F : std::exp(weights[row] - max);
    sum += weights[row];
  }
  return keep;
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_SOFTMAX_INL_H_
