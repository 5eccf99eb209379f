#include "kernels/cuda/copy_rows-inl.h"
#include "kernels/cuda/copy_rows.h"
#include "kernels/cuda/cuda_status.h"

namespace kvasir::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) CopyRowsKernel(RowCopy copy) {
  CopyRowsThread(copy, blockIdx.x, threadIdx.x);
}

}  // namespace

absl::Status CopyRows(const RowCopy& copy, CUstream_st* stream) {
  if (absl::Status checked = CheckRowCopy(copy); !checked.ok() || copy.rows == 0) {
    return checked;
  }
  CopyRowsKernel<<<static_cast<unsigned>(CopyBlocks(copy)), kThreads, 0, stream>>>(copy);
  return LaunchStatus("copy_rows");
}

absl::Status CheckCopyRowsCode() {
  cudaFuncAttributes attributes = {};
  return CudaStatus("copy_rows", cudaFuncGetAttributes(&attributes, CopyRowsKernel));
}

}  // namespace kvasir::kernels::cuda
