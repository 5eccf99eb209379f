// What a build without CUDA has in place of device/cuda.
#include "base/error.h"
#include "device/cuda/cuda_devices.h"

namespace kvasir::device {

namespace {

absl::Status NoCuda() {
  return Unimplemented("this build has no CUDA: configure it with KVASIR_WITH_CUDA=ON");
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Device>>> OpenCudaDevices() { return NoCuda(); }

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const std::string& /*name*/) {
  return NoCuda();
}

absl::StatusOr<std::vector<CudaGpu>> LookAtCudaGpus() { return NoCuda(); }

std::string CudaRuntimeVersion() { return ""; }

}  // namespace kvasir::device
