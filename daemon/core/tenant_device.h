// TenantDevice: what a tenant has on one device: its account there, its groups, and its cached
// prefixes.
//
// Prefixes of a device are a cache of their own: what is given up for want of one memory would give
// nothing of the other. Not thread-safe.
#ifndef KVASIR_DAEMON_CORE_TENANT_DEVICE_H_
#define KVASIR_DAEMON_CORE_TENANT_DEVICE_H_

#include <cstdint>
#include <set>
#include <utility>

#include "base/clock.h"
#include "daemon/core/device_account.h"
#include "daemon/core/offload_counters.h"
#include "daemon/core/prefix_cache.h"

namespace kvasir::core {

struct TenantDevice {
  TenantDevice(uint64_t owner, const DeviceBudget& budget, DeviceMemory& memory,
               DeviceShares& shares, Account& host, PrefixCache cache)
      : account(owner, budget, memory, shares, host),
        kept(ExtentUse::kKept, account),
        outside(ExtentUse::kKept, account),
        prefixes(std::move(cache)) {
    account.set_return_idle([this] { return ReturnIdle(); });
  }
  // Idle extents that nobody has mapped go back; true if there were any.
  bool ReturnIdle();
  // Of a tenant without sessions: every extent goes that holds nothing.
  void ReturnExtents();
  // Some extent could be given back if its groups were freed.
  bool AnyUnmapped() const { return kept.AnyUnmapped() || outside.AnyUnmapped(); }
  uint64_t held_bytes() const { return kept.held_bytes() + outside.held_bytes(); }
  // All of its memory but what could still be allocated of kept groups: recent blocks of its
  // sessions are used a whole extent at a time.
  uint64_t used_bytes() const {
    return account.charged_bytes() - kept.rows_bytes() - outside.rows_bytes() + held_bytes();
  }
  bool Owns(const GroupAllocator* allocator) const {
    return kept.Owns(allocator) || outside.Owns(allocator);
  }

  DeviceAccount account;
  DeviceAllocators kept;
  DeviceAllocators outside;  // no engine maps them: recent blocks of snapshots
  PrefixCache prefixes;      // ends before the groups that it names
  OffloadCounters offloads;
  bool pressed = false;  // between the watermarks it goes on with what it was at
  // Entries of `prefixes` that went down while it was pressed: host memory that is too small for
  // all of them is not filled over and over.
  std::set<uint64_t> went_down;
  Instant rest_until;  // after a failure nothing goes down of its own accord until then
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TENANT_DEVICE_H_
