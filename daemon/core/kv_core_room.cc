// Room for a pool that has become smaller than what tenants are charged.
#include <algorithm>
#include <utility>
#include <vector>

#include "daemon/core/kv_core.h"
#include "policies/fairness/fair_shares.h"

namespace kvasir::core {

bool KvCore::GiveUpCached(uint64_t charged_max) {
  uint64_t charged = 0;
  std::vector<fairness::Claim> claims;
  for (const auto& tenant : tenants_) {
    const Budget& budget = tenant->account.budget();
    const uint64_t own = tenant->account.pool_bytes();
    claims.push_back({budget.reserved_bytes, budget.limit_bytes, budget.weight, own});
    charged += own;
  }
  if (charged <= charged_max) return false;
  const std::vector<uint64_t> shares = fairness::FairShares(charged_max, claims);
  std::vector<std::pair<uint64_t, Tenant*>> above_share;
  for (size_t i = 0; i < tenants_.size(); ++i) {
    above_share.emplace_back(claims[i].wanted - shares[i],
                             tenants_[i].get());  // a share is never above what is wanted
  }
  std::stable_sort(above_share.begin(), above_share.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  return std::any_of(above_share.begin(), above_share.end(),
                     [](const auto& one) { return one.second->ShedCached(); });
}

}  // namespace kvasir::core
