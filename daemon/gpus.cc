#include "daemon/gpus.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "device/cuda/cuda_devices.h"
#include "device/host/host_device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir {
namespace {

using Devices = std::vector<std::unique_ptr<device::Device>>;

// Engines open a device of host memory of the same name, which then is the same device.
absl::StatusOr<std::unique_ptr<device::Device>> OpenHost(const Config::Gpu& gpu) {
  device::HostDeviceOptions options;
  options.total_bytes = gpu.pool_bytes;
  options.name = "host memory of " + gpu.name;
  options.uuid = "host-" + gpu.name;
  options.hides_extents = true;  // what works here does not read a GPU's memory by the processor
  return device::HostDevice::Create(options);
}

// The place of a device in CUDA's order. Errors: see OpenGpus().
absl::StatusOr<size_t> PlaceOf(const std::vector<device::CudaGpu>& seen, const Config::Gpu& gpu) {
  std::vector<std::string> known;
  for (size_t i = 0; i < seen.size(); ++i) {
    const device::CudaGpu& one = seen[i];
    known.push_back(one.facts.uuid);
    if (gpu.device != one.facts.uuid && gpu.device != fmt::format("cuda:{}", i)) continue;
    if (one.missing.empty()) return i;
    return FailedPrecondition("gpu.device cannot have a pool: gpu={} device={} name={} lacks={}",
                              gpu.name, gpu.device, one.facts.name, fmt::join(one.missing, ", "));
  }
  return NotFound("gpu.device is not there: gpu={} device={} seen={}", gpu.name, gpu.device,
                  fmt::join(known, ","));
}

absl::StatusOr<std::unique_ptr<device::Device>> TakeCuda(const std::vector<device::CudaGpu>& seen,
                                                         const Config::Gpu& gpu, Devices* opened) {
  KVASIR_ASSIGN_OR_RETURN(const size_t place, PlaceOf(seen, gpu));
  for (std::unique_ptr<device::Device>& device : *opened) {
    if (device != nullptr && device->facts().uuid == seen[place].facts.uuid) {
      return std::move(device);
    }
  }
  return FailedPrecondition("gpu.device could not be opened, or has a pool: gpu={} device={}",
                            gpu.name, gpu.device);
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<DeviceMemory>>> OpenGpus(
    const std::vector<Config::Gpu>& gpus) {
  std::vector<device::CudaGpu> seen;
  Devices opened;
  if (std::any_of(gpus.begin(), gpus.end(),
                  [](const Config::Gpu& gpu) { return gpu.device != "host"; })) {
    KVASIR_ASSIGN_OR_RETURN(seen, device::LookAtCudaGpus());
    for (const device::CudaGpu& gpu : seen) {
      if (gpu.missing.empty()) continue;
      spdlog::warn("a GPU cannot have a pool: name={} uuid={} lacks={}", gpu.facts.name,
                   gpu.facts.uuid, fmt::join(gpu.missing, ", "));
    }
    for (const Config::Gpu& gpu : gpus) {
      if (gpu.device != "host") KVASIR_RETURN_IF_ERROR(PlaceOf(seen, gpu).status());
    }
    KVASIR_ASSIGN_OR_RETURN(opened, device::OpenCudaDevices());
  }
  std::vector<std::unique_ptr<DeviceMemory>> pools;
  for (const Config::Gpu& gpu : gpus) {
    absl::StatusOr<std::unique_ptr<device::Device>> device =
        gpu.device == "host" ? OpenHost(gpu) : TakeCuda(seen, gpu, &opened);
    KVASIR_RETURN_IF_ERROR(device.status());
    KVASIR_ASSIGN_OR_RETURN(
        std::unique_ptr<DeviceMemory> pool,
        DeviceMemory::Create(*std::move(device), {gpu.name, gpu.pool_bytes, gpu.recent_extent_bytes,
                                                  gpu.extent_bytes}));
    const device::DeviceFacts& facts = pool->facts();
    spdlog::info(
        "pool of a device is ready: pool={} device={} uuid={} driver={} pool_bytes={} "
        "device_bytes={} granularity_bytes={}",
        gpu.name, facts.name, facts.uuid, facts.driver, gpu.pool_bytes, facts.total_bytes,
        facts.granularity_bytes);
    pools.push_back(std::move(pool));
  }
  return pools;
}

}  // namespace kvasir
