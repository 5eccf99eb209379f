// A configuration with a pool of a device, for tests that start a daemon.
#ifndef KVASIR_TESTS_SUPPORT_DEVICE_CONFIG_H_
#define KVASIR_TESTS_SUPPORT_DEVICE_CONFIG_H_

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "daemon/config.h"

namespace kvasir::testing {

inline constexpr uint64_t kDevicePoolBytes = 32 * kMiB;

// `config` with the pool gpu0 on `device`, as [[gpu]] names it, of which its first tenant may have
// `limit_bytes`.
inline Config WithDevicePool(Config config, const std::string& device,
                             uint64_t limit_bytes = kDevicePoolBytes) {
  Config::Gpu gpu;
  gpu.name = "gpu0";
  gpu.device = device;
  gpu.pool_bytes = kDevicePoolBytes;
  gpu.extent_bytes = 4 * kMiB;
  gpu.recent_extent_bytes = 2 * kMiB;
  config.gpus = {gpu};
  config.tenants[0].gpus = {{"gpu0", 0, limit_bytes, 1}};
  return config;
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_DEVICE_CONFIG_H_
