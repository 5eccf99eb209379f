// The driver's entry points, looked up when the process runs. For the sources of device/cuda alone:
// they are the only ones that see CUDA's headers.
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <cuda.h>
#include <cudaTypedefs.h>

#include "device/cuda/cuda_devices.h"

namespace kvasir::device {

// name, version of the driver that first had it in this form.
// clang-format off
#define KVASIR_CUDA_CALLS(X) \
  X(cuInit, 2000) X(cuDriverGetVersion, 2020) X(cuGetErrorName, 6000) \
  X(cuDeviceGetCount, 2000) X(cuDeviceGet, 2000) X(cuDeviceGetName, 2000) \
  X(cuDeviceGetUuid, 11040) X(cuDeviceGetAttribute, 2000) X(cuDeviceTotalMem, 3020) \
  X(cuDevicePrimaryCtxRetain, 7000) X(cuDevicePrimaryCtxRelease, 11000) \
  X(cuCtxSetCurrent, 4000) X(cuCtxGetStreamPriorityRange, 5050) X(cuMemGetInfo, 3020) \
  X(cuMemGetAllocationGranularity, 10020) X(cuMemCreate, 10020) X(cuMemRelease, 10020) \
  X(cuMemAddressReserve, 10020) X(cuMemAddressFree, 10020) X(cuMemMap, 10020) \
  X(cuMemUnmap, 10020) X(cuMemSetAccess, 10020) X(cuMemExportToShareableHandle, 10020) \
  X(cuMemImportFromShareableHandle, 10020) X(cuMemGetAllocationPropertiesFromHandle, 10020) \
  X(cuMemAlloc, 3020) X(cuMemFree, 3020) X(cuMemHostAlloc, 2020) X(cuMemFreeHost, 2000) \
  X(cuMemHostRegister, 6050) X(cuMemHostUnregister, 4000) X(cuMemcpyAsync, 4000) \
  X(cuMemcpy2DAsync, 3020) X(cuMemsetD8Async, 3020) X(cuStreamCreateWithPriority, 5050) \
  X(cuStreamDestroy, 4000) X(cuStreamSynchronize, 2000) X(cuStreamWaitEvent, 3020) \
  X(cuStreamWaitValue64, 11070) X(cuStreamWriteValue64, 11070) X(cuEventCreate, 2000) \
  X(cuEventDestroy, 4000) X(cuEventRecord, 2000) X(cuEventQuery, 2000) \
  X(cuEventSynchronize, 2000)
// clang-format on

struct CudaDriver {
#define KVASIR_CUDA_MEMBER(name, version) PFN_##name##_v##version name = nullptr;
  KVASIR_CUDA_CALLS(KVASIR_CUDA_MEMBER)
#undef KVASIR_CUDA_MEMBER
  PFN_cuMemcpyBatchAsync_v13000 cuMemcpyBatchAsync = nullptr;  // of driver 580 on; may be null
};

// Errors: kUnavailable naming the error of the runtime, or the entry point that the driver lacks.
absl::StatusOr<CudaDriver> LoadCudaDriver();

// `call` failed; `what` are figures for the text. Out of memory is kResourceExhausted, what the
// driver cannot do kFailedPrecondition, a bad value kInvalidArgument, a context that is no more
// kUnavailable, else kInternal.
absl::Status CudaError(const CudaDriver& driver, CUresult result, const char* call);

// The context is broken for good.
bool IsFatal(CUresult result);

// Memory of the device that can be passed on as a descriptor.
CUmemAllocationProp PropertiesOf(CUdevice device);

// Wakes the driver. Errors: those of OpenCudaDevices(); never 0.
absl::StatusOr<int> CountGpus(const CudaDriver& driver);

// What is known of a GPU before it has a context; `index` < CountGpus().
absl::StatusOr<CudaGpu> LookAt(const CudaDriver& driver, int index);

}  // namespace kvasir::device
