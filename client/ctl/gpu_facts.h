// What a host shows of its GPUs: the PCI bus, the driver, the device files, CUDA itself.
#ifndef KVASIR_CLIENT_CTL_GPU_FACTS_H_
#define KVASIR_CLIENT_CTL_GPU_FACTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "device/cuda/cuda_devices.h"

namespace kvasir::ctl {

struct GpuFacts {
  bool pci_bus = false;       // the host shows one: not so in some containers
  uint32_t pci_devices = 0;   // NVIDIA's, of those that compute or display
  uint32_t device_files = 0;  // /dev/nvidia0, /dev/nvidia1, ...
  std::string kernel_driver;  // version in /proc/driver/nvidia/version; "": not loaded
  bool cuda_driver = false;   // libcuda.so.1 can be loaded
  std::string runtime;        // CUDA that this build is made with; "": none
  absl::StatusOr<std::vector<device::CudaGpu>> gpus = absl::UnimplementedError("not asked");
};

// Reads /proc, /sys and /dev under `root` ("" = the real ones); asks CUDA, which has no root, where
// the build has it. Cost: some 10 ms where there is a driver.
GpuFacts GatherGpuFacts(const std::string& root);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_GPU_FACTS_H_
