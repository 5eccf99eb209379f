#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/dot_keys-inl.h"
#include "kernels/cuda/dot_keys.h"
#include "kernels/cuda/row_type_launch.h"

namespace kvasir::kernels::cuda {
namespace {

template <RowType kType>
__global__ void __launch_bounds__(kThreads) DotKeysKernel(KeyDots dots) {
  const uint64_t row = uint64_t{blockIdx.x} * kDotRows + threadIdx.x / kWarp;
  if (row >= dots.rows) {
    return;  // the whole warp
  }
  const uint32_t lane = threadIdx.x % kWarp;
  float sum = DotLane(dots, kType, row, lane);
  for (uint32_t ahead = kWarp / 2; ahead > 0; ahead /= 2) {
    sum += __shfl_down_sync(0xFFFFFFFFU, sum, ahead);
  }
  if (lane == 0) {
    dots.out[row] = sum;
  }
}

}  // namespace

absl::Status DotKeys(const KeyDots& dots, CUstream_st* stream) {
  if (absl::Status checked = CheckKeyDots(dots); !checked.ok() || dots.rows == 0) {
    return checked;
  }
  const auto blocks = static_cast<unsigned>(CeilDivide(dots.rows, kDotRows));
  ForRowType(dots.shape.type, [&](auto type) {
    DotKeysKernel<decltype(type)::value><<<blocks, kThreads, 0, stream>>>(dots);
  });
  return LaunchStatus("dot_keys");
}

}  // namespace kvasir::kernels::cuda
