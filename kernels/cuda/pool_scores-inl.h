// What a thread of PoolScores() does: one result, its terms in the order of the plain form.
#ifndef KVASIR_KERNELS_CUDA_POOL_SCORES_INL_H_
#define KVASIR_KERNELS_CUDA_POOL_SCORES_INL_H_

#include <cstdint>
#include <limits>

#include "kernels/cuda/grid.h"
#include "kernels/cuda/pool_scores.h"

namespace kvasir::kernels::cuda {

KVASIR_HOST_DEVICE inline void PoolThread(const ScorePooling& pooling, uint64_t block,
                                          uint32_t thread) {
  const uint64_t item = block * kThreads + thread;
  if (item >= pooling.lists * pooling.size) {
    return;
  }
  const uint64_t half = pooling.kernel / 2;
  const uint64_t at = item % pooling.size;
  const float* list = pooling.in + (item - at);
  const bool average = pooling.pooling == Pooling::kAverage;
  const uint64_t first = at < half ? 0 : at - half;
  const uint64_t behind = pooling.size - 1 - at;
  const uint64_t last = at + (behind < half ? behind : half);
  float pooled = average ? 0.0F : -std::numeric_limits<float>::infinity();
  for (uint64_t i = first; i <= last; ++i) {
    const float score = list[i];
    pooled = average ? pooled + score : (pooled < score ? score : pooled);
  }
  pooling.out[item] = average ? pooled / static_cast<float>(pooling.kernel) : pooled;
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_POOL_SCORES_INL_H_
