// Budget: what an operator grants one tenant. Plain values.
#ifndef KVASIR_DAEMON_CORE_BUDGET_H_
#define KVASIR_DAEMON_CORE_BUDGET_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace kvasir::core {

// What has an entry in the daemon's own memory is bounded by number. Of all sessions of the tenant.
struct CountLimits {
  static constexpr uint32_t kNoBound = std::numeric_limits<uint32_t>::max();

  uint32_t sessions = kNoBound;
  uint32_t sequences = kNoBound;
  uint32_t models = kNoBound;  // a session that registers a model counts it once
  uint32_t snapshots = 64;
  uint32_t prefixes = 4096;  // cached in memory; in each tier as many
  friend bool operator==(const CountLimits&, const CountLimits&) = default;
};

// Of the pool of one device, bytes of extents.
struct DeviceBudget {
  std::string pool = {};
  uint64_t reserved_bytes = 0;  // kept free for it: device memory cannot be taken back
  uint64_t limit_bytes = 0;     // never more
  uint32_t weight = 1;          // of its part of what nobody has reserved
  friend bool operator==(const DeviceBudget&, const DeviceBudget&) = default;
};

struct Budget {
  // Of the host pool, bytes of extents.
  uint64_t reserved_bytes = 0;  // always its own; lent to others while it does not use them
  uint64_t limit_bytes = 0;     // never more
  uint32_t weight = 1;          // of its part of what nobody has reserved, here and in a disk tier
  // Of a tier that is this host's alone, bytes of values; likewise.
  uint64_t disk_reserved_bytes = 0;
  uint64_t disk_bytes = std::numeric_limits<uint64_t>::max();
  // Of a tier that other hosts share: what this host knows of there.
  uint64_t remote_bytes = std::numeric_limits<uint64_t>::max();
  CountLimits counts = {};
  std::vector<DeviceBudget> devices = {};  // in the order of the pools; none: it may have nothing
  friend bool operator==(const Budget&, const Budget&) = default;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_BUDGET_H_
