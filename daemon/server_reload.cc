// What may change while the daemon runs.
#include <algorithm>
#include <map>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/config.h"
#include "daemon/core_config.h"
#include "daemon/server.h"

namespace kvasir {

absl::Status Server::Reload(const Config& config) {
  // What may change is made equal; where the rest differs, that line is named.
  Config rest = config;
  rest.server.log_level = config_.server.log_level;
  std::map<std::string, core::Budget> budgets;
  for (size_t i = 0; i < std::min(rest.tenants.size(), config_.tenants.size()); ++i) {
    Config::Tenant& tenant = rest.tenants[i];
    budgets[tenant.name] = BudgetOf(tenant);
    KeepBudget(config_.tenants[i], &tenant);
  }
  if (!(rest == config_)) {
    std::istringstream now(EffectiveConfigToml(config_)), wanted(EffectiveConfigToml(rest));
    std::string one, other;
    do {
      if (!std::getline(now, one)) one = "nothing";
      if (!std::getline(wanted, other)) other = "nothing";
    } while (one == other && one != "nothing");
    return FailedPrecondition("a change needs a restart: now=[{}] wanted=[{}]", one, other);
  }
  {
    MutexLock lock(shared_->mutex);
    KVASIR_RETURN_IF_ERROR(shared_->core.SetBudgets(budgets));
  }
  spdlog::set_level(spdlog::level::from_str(config.server.log_level));
  return absl::OkStatus();
}

}  // namespace kvasir
