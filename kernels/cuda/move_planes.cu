#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/move_planes-inl.h"
#include "kernels/cuda/move_planes.h"

namespace kvasir::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) MovePlanesKernel(PlaneMove move) {
  MovePlanesThread(move, blockIdx.x, threadIdx.x);
}

}  // namespace

absl::Status MovePlanes(const PlaneMove& move, CUstream_st* stream) {
  if (absl::Status checked = CheckPlaneMove(move); !checked.ok() || move.group_count == 0) {
    return checked;
  }
  MovePlanesKernel<<<static_cast<unsigned>(PlaneBlocks(move)), kThreads, 0, stream>>>(move);
  return LaunchStatus("move_planes");
}

}  // namespace kvasir::kernels::cuda
