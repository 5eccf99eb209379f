// The devices that the configuration names, opened, each with its pool.
#ifndef KVASIR_DAEMON_GPUS_H_
#define KVASIR_DAEMON_GPUS_H_

#include <memory>
#include <vector>

#include <absl/status/statusor.h>

#include "allocator/device_memory.h"
#include "daemon/config.h"

namespace kvasir {

// In the order of the configuration. GPUs that cannot have a pool are named in the log with what
// they lack. Errors: kNotFound naming the device and those that are there, kFailedPrecondition with
// what it lacks, those of OpenCudaDevices() and DeviceMemory::Create(). Cost: of each GPU of the
// host some hundred MiB of its memory while it is opened, and of those with a pool as long as it
// is.
absl::StatusOr<std::vector<std::unique_ptr<DeviceMemory>>> OpenGpus(
    const std::vector<Config::Gpu>& gpus);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_GPUS_H_
