// What the CUDA runtime answered, as absl::Status. Thread-safe.
#ifndef KVASIR_KERNELS_CUDA_CUDA_STATUS_H_
#define KVASIR_KERNELS_CUDA_CUDA_STATUS_H_

#include <string_view>

#include <absl/status/status.h>

namespace kvasir::kernels::cuda {

// `error`: a cudaError_t. Errors: kUnavailable naming what was tried, the error's name and number;
// kResourceExhausted where memory was missing.
absl::Status CudaStatus(std::string_view what, int error);

// The same of the launch before: what the runtime refused; a fault while a kernel runs comes with
// whatever waits for its stream.
absl::Status LaunchStatus(std::string_view what);

// Errors: why no kernel can run here, as the runtime has it ("no GPU: cudaErrorInsufficientDriver
// ...").
absl::Status CheckGpu();

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_CUDA_STATUS_H_
