// Tenant: who pays. Its account, its extents for kept rows, its counters.
#ifndef KVASIR_DAEMON_CORE_TENANT_H_
#define KVASIR_DAEMON_CORE_TENANT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "allocator/group_allocator.h"
#include "daemon/core/account.h"

namespace kvasir::core {

struct TenantConfig {
  std::string name;
  std::vector<uint32_t> uids;
  uint64_t limit_bytes = 0;
  std::string retention;  // default policy of its sequences
};

struct TenantCounters {
  uint64_t compactions = 0;
  uint64_t rejected_calls = 0;
  uint64_t violations = 0;
};

// Group allocators by group size, made when first asked for. Not thread-safe.
class AllocatorSet {
 public:
  AllocatorSet(ExtentUse use, uint64_t first_extent_bytes, uint64_t extent_bytes,
               ExtentSource& source)
      : use_(use),
        first_extent_bytes_(first_extent_bytes),
        extent_bytes_(extent_bytes),
        source_(source) {}

  GroupAllocator& For(uint64_t group_bytes) {
    std::unique_ptr<GroupAllocator>& slot = by_bytes_[group_bytes];
    if (slot == nullptr) {
      slot = std::make_unique<GroupAllocator>(
          GroupAllocator::Options{group_bytes, use_, first_extent_bytes_, extent_bytes_}, source_);
    }
    return *slot;
  }
  uint64_t held_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [size, allocator] : by_bytes_) bytes += allocator->held_bytes();
    return bytes;
  }
  uint64_t charged_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [size, allocator] : by_bytes_) bytes += allocator->charged_bytes();
    return bytes;
  }
  // Gives every extent to the source. REQUIRES: nothing is held.
  void Clear() { by_bytes_.clear(); }

 private:
  const ExtentUse use_;
  const uint64_t first_extent_bytes_;
  const uint64_t extent_bytes_;
  ExtentSource& source_;
  std::map<uint64_t, std::unique_ptr<GroupAllocator>> by_bytes_;
};

// Not thread-safe. Address-stable: sessions refer to it.
struct Tenant {
  Tenant(TenantConfig tenant_config, HostPool& pool, uint64_t first_extent_bytes,
         uint64_t extent_bytes)
      : config(std::move(tenant_config)),
        account(config.name, config.limit_bytes, pool),
        kept(ExtentUse::kKept, first_extent_bytes, extent_bytes, account),
        outside(ExtentUse::kKept, first_extent_bytes, extent_bytes, account) {}

  const TenantConfig config;
  Account account;
  AllocatorSet kept;
  AllocatorSet outside;  // sealed blocks that no engine maps until they are looked up
  TenantCounters counters;
  uint32_t sessions = 0;
  uint64_t served_at = 0;  // turn in which a job of its was last taken
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TENANT_H_
