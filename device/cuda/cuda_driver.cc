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

bool IsFatal(CUresult result) {
  switch (result) {
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_MPS_CLIENT_TERMINATED:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      return false;
  }
}

absl::Status CudaError(const CudaDriver& driver, CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  const char* name = nullptr;
  if (driver.cuGetErrorName(result, &name) != CUDA_SUCCESS) name = "an unknown error";
  const int number = static_cast<int>(result);
  if (IsFatal(result)) return Unavailable("{}: {}: error={}", call, name, number);
  switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY:
      return ResourceExhausted("{}: {}: error={}", call, name, number);
    case CUDA_ERROR_NOT_SUPPORTED:
    case CUDA_ERROR_NOT_PERMITTED:
      return FailedPrecondition("{}: {}: error={}", call, name, number);
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_SYSTEM_NOT_READY:
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
      return Unavailable("{}: {}: error={}", call, name, number);
    case CUDA_ERROR_INVALID_VALUE:
    case CUDA_ERROR_INVALID_HANDLE:
    case CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED:
      return InvalidArgument("{}: {}: error={}", call, name, number);
    default:
      return Internal("{}: {}: error={}", call, name, number);
  }
}

}  // namespace kvasir::device
