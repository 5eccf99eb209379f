#include "kernels/cuda/cuda_status.h"

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace kvasir::kernels::cuda {

absl::Status CudaStatus(std::string_view what, int error) {
  const auto code = static_cast<cudaError_t>(error);
  if (code == cudaSuccess) {
    return absl::OkStatus();
  }
  (void)cudaGetLastError();  // told here, and not by the next launch
  if (code == cudaErrorMemoryAllocation) {
    return ResourceExhausted("{}: {} ({}): {}", what, cudaGetErrorName(code), error,
                             cudaGetErrorString(code));
  }
  return Unavailable("{}: {} ({}): {}", what, cudaGetErrorName(code), error,
                     cudaGetErrorString(code));
}

absl::Status LaunchStatus(std::string_view what) { return CudaStatus(what, cudaGetLastError()); }

absl::Status CheckGpu() {
  int count = 0;  // left as it is where the call fails: the code is what counts
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess && count == 0) {
    return CudaStatus("no GPU", cudaErrorNoDevice);
  }
  return CudaStatus("no GPU", code);
}

}  // namespace kvasir::kernels::cuda
