// Room for a pool that has become smaller than what tenants are charged.
#include <algorithm>
#include <utility>
#include <vector>

#include "daemon/core/kv_core.h"

namespace kvasir::core {

bool KvCore::GiveUpCached(uint64_t charged_max) {
  uint64_t charged = 0;
  double limits = 0;
  for (const auto& tenant : tenants_) {
    charged += tenant->account.charged_bytes();
    limits += static_cast<double>(tenant->account.limit_bytes());
  }
  if (charged <= charged_max) return false;
  std::vector<std::pair<double, Tenant*>> above_share;
  for (const auto& tenant : tenants_) {
    const double share = static_cast<double>(charged_max) *
                         static_cast<double>(tenant->account.limit_bytes()) / limits;
    const auto own = static_cast<double>(tenant->account.charged_bytes());
    above_share.emplace_back(own - share, tenant.get());
  }
  std::stable_sort(above_share.begin(), above_share.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  return std::any_of(above_share.begin(), above_share.end(),
                     [](const auto& one) { return one.second->ShedCached(); });
}

}  // namespace kvasir::core
