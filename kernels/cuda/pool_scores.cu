#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/pool_scores-inl.h"
#include "kernels/cuda/pool_scores.h"

namespace kvasir::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) PoolKernel(ScorePooling pooling) {
  PoolThread(pooling, blockIdx.x, threadIdx.x);
}

}  // namespace

absl::Status PoolScores(const ScorePooling& pooling, CUstream_st* stream) {
  const uint64_t scores = pooling.lists * pooling.size;
  if (absl::Status checked = CheckScorePooling(pooling); !checked.ok() || scores == 0) {
    return checked;
  }
  const auto blocks = static_cast<unsigned>(CeilDivide(scores, kThreads));
  PoolKernel<<<blocks, kThreads, 0, stream>>>(pooling);
  return LaunchStatus("pool_scores");
}

}  // namespace kvasir::kernels::cuda
