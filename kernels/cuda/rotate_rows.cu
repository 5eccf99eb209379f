#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/rotate_rows-inl.h"
#include "kernels/cuda/rotate_rows.h"
#include "kernels/cuda/row_type_launch.h"

namespace kvasir::kernels::cuda {
namespace {

template <RowType kType>
__global__ void __launch_bounds__(kThreads) RotateRowsKernel(RowRotation rotation) {
  RotateRowsThread(rotation, kType, blockIdx.x, threadIdx.x);
}

}  // namespace

absl::Status RotateRows(const RowRotation& rotation, CUstream_st* stream) {
  if (absl::Status checked = CheckRowRotation(rotation); !checked.ok() || rotation.rows == 0) {
    return checked;
  }
  const auto blocks = static_cast<unsigned>(RotateBlocks(rotation));
  ForRowType(rotation.shape.type, [&](auto type) {
    RotateRowsKernel<decltype(type)::value><<<blocks, kThreads, 0, stream>>>(rotation);
  });
  return LaunchStatus("rotate_rows");
}

}  // namespace kvasir::kernels::cuda
