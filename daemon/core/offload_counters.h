// Counts of what moved between a device and host memory.
#ifndef KVASIR_DAEMON_CORE_OFFLOAD_COUNTERS_H_
#define KVASIR_DAEMON_CORE_OFFLOAD_COUNTERS_H_

#include <cstdint>

namespace kvasir::core {

// Cached prefixes and saved sequences of one tenant, and the bytes that were copied for them: what
// lies in both memories is copied once.
struct OffloadCounters {
  uint64_t stores = 0, stored_bytes = 0;  // to host memory
  uint64_t loads = 0, loaded_bytes = 0;   // from there
  uint64_t failures = 0;                  // no room, or not copied
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_OFFLOAD_COUNTERS_H_
