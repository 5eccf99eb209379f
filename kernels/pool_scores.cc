// PoolScores: one vector of results at a time, its terms added in the order of the plain form.
#include <algorithm>

#include "base/check.h"
#include "kernels/scores.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pool_scores.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what it is compiled for.
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

// Results at both ends have fewer terms: those of the plain form over the scores that matter to
// them.
void PoolScoresTarget(std::span<const float> in, uint32_t kernel, Pooling pooling,
                      std::span<float> out) {
#if KVASIR_VECTOR_TARGET
  const FloatTag d;
  const size_t half = kernel / 2;
  const size_t size = in.size();
  if (size >= 2 * half + kLanes) {
    const FloatVec divisor = hn::Set(d, static_cast<float>(kernel));
    const bool average = pooling == Pooling::kAverage;
    // Lowest result of a vector: the last vector starts early, so that it ends with the inner ones.
    const size_t last = size - half - kLanes;
    for (size_t at = half; at < size - half; at += kLanes) {
      const float* from = in.data() + std::min(at, last) - half;
      FloatVec pooled = average ? hn::Zero(d) : hn::LoadU(d, from);
      for (size_t i = 0; i < kernel; ++i) {
        const FloatVec score = hn::LoadU(d, from + i);
        pooled = average ? hn::Add(pooled, score) : hn::Max(pooled, score);
      }
      hn::StoreU(average ? hn::Div(pooled, divisor) : pooled, d, out.data() + std::min(at, last));
    }
    if (half > 0) {
      float* ends = Scratch(2 * half);
      scalar::PoolScores(in.first(2 * half), kernel, pooling, {ends, 2 * half});
      std::copy(ends, ends + half, out.data());
      scalar::PoolScores(in.last(2 * half), kernel, pooling, {ends, 2 * half});
      std::copy(ends + half, ends + 2 * half, out.data() + size - half);
    }
    return;
  }
#endif
  scalar::PoolScores(in, kernel, pooling, out);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(PoolScoresTarget);

void PoolScores(std::span<const float> in, uint32_t kernel, Pooling pooling, std::span<float> out) {
  KVASIR_CHECK(kernel % 2 == 1, "a pooling kernel of {}", kernel);
  KVASIR_CHECK(out.size() == in.size(), "pooling {} scores into {}", in.size(), out.size());
  HWY_DYNAMIC_DISPATCH(PoolScoresTarget)(in, kernel, pooling, out);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
