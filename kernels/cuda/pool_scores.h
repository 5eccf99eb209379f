// Pooling of scores on the device: PoolScores() of kernels/scores.h, bit for bit.
//
// Source: SnapKV (arXiv:2404.14469, section 4), GemFilter's code. Asynchronous, thread-safe, as
// copy_rows.h. Cost: `kernel` reads a score, from the first-level cache.
#ifndef KVASIR_KERNELS_CUDA_POOL_SCORES_H_
#define KVASIR_KERNELS_CUDA_POOL_SCORES_H_

#include <cstdint>

#include <absl/status/status.h>

#include "kernels/cuda/rows.h"
#include "kernels/scores.h"

namespace kvasir::kernels::cuda {

struct ScorePooling {
  const float* in = nullptr;  // [lists][size]; lists are pooled one by one, e.g. of heads
  float* out = nullptr;       // the same; not `in`
  uint64_t lists = 1;
  uint64_t size = 0;    // 0: nothing happens
  uint32_t kernel = 1;  // odd, at most 2^16
  Pooling pooling = Pooling::kAverage;
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckScorePooling(const ScorePooling& pooling);

// Errors: those of CheckScorePooling(); kUnavailable when the runtime refuses the launch.
absl::Status PoolScores(const ScorePooling& pooling, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_POOL_SCORES_H_
