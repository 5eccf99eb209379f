// CUDA devices by virtual memory management. One binary runs with and without a GPU: the runtime is
// linked statically, the driver is looked up when the process runs. Includes no CUDA header.
#ifndef KVASIR_DEVICE_CUDA_CUDA_DEVICES_H_
#define KVASIR_DEVICE_CUDA_CUDA_DEVICES_H_

#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "device/device.h"

namespace kvasir::device {

// Every GPU that this process sees and that can do what device.h promises; at least one.
// Errors: kUnimplemented: this build has no CUDA. kUnavailable naming the CUDA error: no driver,
// one that is too old, no GPU. kFailedPrecondition naming what every GPU lacks. Memory of two
// owners: extents are created and released, never kept; each is zeroed when it is created, since
// CUDA documents no contents of fresh memory. Cost: some 100 ms and some hundred MiB of each GPU
// for its context.
absl::StatusOr<std::vector<std::unique_ptr<Device>>> OpenCudaDevices();

// One of them alone, so that the others get no context: "cuda:N" of CUDA's order, or a uuid.
// Errors: as above; kNotFound naming the uuids of those that are there.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const std::string& name);

// What a GPU is, and what it lacks of what device.h promises.
struct CudaGpu {
  DeviceFacts facts;                 // granularity_bytes: 0 where something is missing
  std::vector<std::string> missing;  // "virtual memory management"; none: OpenCudaDevices() has it
};

// Every GPU that this process sees. Errors as above, but for kFailedPrecondition. Cost: some 10 ms
// to wake the driver; makes no context.
absl::StatusOr<std::vector<CudaGpu>> LookAtCudaGpus();

// Of the toolkit that this build is made with: "13.0"; "" in a build without CUDA.
std::string CudaRuntimeVersion();

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_CUDA_CUDA_DEVICES_H_
