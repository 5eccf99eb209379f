// CoreConfigOf: what the core needs of the configuration.
#ifndef KVASIR_DAEMON_CORE_CONFIG_H_
#define KVASIR_DAEMON_CORE_CONFIG_H_

#include "daemon/config.h"
#include "daemon/core/kv_core_types.h"

namespace kvasir {

// What the configuration grants the tenant.
core::Budget BudgetOf(const Config::Tenant& tenant);
// `to` has the budget of `from`.
void KeepBudget(const Config::Tenant& from, Config::Tenant* to);

// Without profiles, tiers and secrets, which are not in it.
core::CoreConfig CoreConfigOf(const Config& config);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CORE_CONFIG_H_
