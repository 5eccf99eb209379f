#include <cuda_runtime_api.h>

#include "base/error.h"
#include "device/cuda/cuda_driver-inl.h"

namespace kvasir::device {
namespace {

template <typename Function>
absl::Status Find(const char* name, unsigned version, Function* function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &found, version, cudaEnableDefault, &result);
  if (error != cudaSuccess) {
    return Unavailable("cudaGetDriverEntryPointByVersion: {}: {}: name={} version={}",
                       cudaGetErrorName(error), cudaGetErrorString(error), name, version);
  }
  if (result != cudaDriverEntryPointSuccess || found == nullptr) {
    return Unavailable("the driver is too old: it lacks name={} version={}", name, version);
  }
  *function = reinterpret_cast<Function>(found);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CudaDriver> LoadCudaDriver() {
  CudaDriver driver;
  absl::Status status;
#define KVASIR_CUDA_FIND(name, version) \
  if (status.ok()) status = Find(#name, version, &driver.name);
  KVASIR_CUDA_CALLS(KVASIR_CUDA_FIND)
#undef KVASIR_CUDA_FIND
  if (!status.ok()) return status;
  if (!Find("cuMemcpyBatchAsync", 13000, &driver.cuMemcpyBatchAsync).ok()) {
    driver.cuMemcpyBatchAsync = nullptr;  // pieces go one by one
  }
  return driver;
}

}  // namespace kvasir::device
