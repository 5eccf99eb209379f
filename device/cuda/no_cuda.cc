// What a build without CUDA has in place of device/cuda.
#include "base/error.h"
#include "device/cuda/cuda_devices.h"

namespace kvasir::device {

absl::StatusOr<std::vector<std::unique_ptr<Device>>> OpenCudaDevices() {
  return Unimplemented("this build has no CUDA: configure it with KVASIR_WITH_CUDA=ON");
}

}  // namespace kvasir::device
