#include "daemon/core/prefix_lease.h"

#include <algorithm>
#include <utility>

namespace kvasir::core {

void PrefixLeases::Add(const PrefixLeaseId& id, PrefixLease lease) {
  leases_.emplace(id, std::move(lease));
}

const PrefixLease* PrefixLeases::Find(const PrefixLeaseId& id) const {
  const auto found = leases_.find(id);
  return found == leases_.end() ? nullptr : &found->second;
}

void PrefixLeases::EndOf(uint32_t owner) {
  std::erase_if(leases_, [owner](const auto& each) { return each.second.owner == owner; });
}

std::optional<Instant> PrefixLeases::EndExpired(Instant now) {
  std::erase_if(leases_, [now](const auto& each) { return each.second.ends_at <= now; });
  std::optional<Instant> next;
  for (const auto& [id, lease] : leases_) {
    if (!next || lease.ends_at < *next) next = lease.ends_at;
  }
  return next;
}

uint64_t PrefixLeases::CountOf(uint32_t owner) const {
  return static_cast<uint64_t>(std::count_if(leases_.begin(), leases_.end(), [&](const auto& each) {
    return each.second.owner == owner;
  }));
}

uint64_t PrefixLeases::CountOf(const Tenant& tenant) const {
  return static_cast<uint64_t>(std::count_if(leases_.begin(), leases_.end(), [&](const auto& each) {
    return each.second.tenant == &tenant;
  }));
}

}  // namespace kvasir::core
