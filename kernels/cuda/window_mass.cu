#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/row_type_launch.h"
#include "kernels/cuda/window_mass-inl.h"
#include "kernels/cuda/window_mass.h"

namespace kvasir::kernels::cuda {
namespace {

template <RowType kType>
__global__ void __launch_bounds__(kThreads) ScoreKernel(KeyMass mass) {
  __shared__ float shared[kScoreShared];
  ScoreLoad(mass, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  ScoreKey(mass, kType, blockIdx.x, threadIdx.x, shared);
}

__global__ void __launch_bounds__(kThreads) SoftmaxKernel(KeyMass mass) {
  __shared__ SoftmaxShared shared;
  SoftmaxMost(mass, blockIdx.x, threadIdx.x, shared);
  for (uint32_t half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    FoldMost(half, threadIdx.x, shared);
  }
  __syncthreads();
  SoftmaxSum(mass, blockIdx.x, threadIdx.x, shared);
  for (uint32_t half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    FoldSum(half, threadIdx.x, shared);
  }
  SoftmaxStore(mass, blockIdx.x, threadIdx.x, shared);
}

__global__ void __launch_bounds__(kThreads) SumMassKernel(KeyMass mass) {
  SumMass(mass, blockIdx.x, threadIdx.x);
}

}  // namespace

absl::Status MassOfWindow(const KeyMass& mass, CUstream_st* stream) {
  if (absl::Status checked = CheckKeyMass(mass); !checked.ok() || mass.rows == 0) {
    return checked;
  }
  ForRowType(mass.shape.type, [&](auto type) {
    ScoreKernel<decltype(type)::value>
        <<<static_cast<unsigned>(ScoreBlocks(mass)), kThreads, 0, stream>>>(mass);
  });
  SoftmaxKernel<<<MassQueries(mass), kThreads, 0, stream>>>(mass);
  const auto blocks = static_cast<unsigned>(CeilDivide(mass.heads * mass.rows, kThreads));
  SumMassKernel<<<blocks, kThreads, 0, stream>>>(mass);
  return LaunchStatus("window_mass");
}

}  // namespace kvasir::kernels::cuda
