#include "daemon/core_config.h"

namespace kvasir {

core::Budget BudgetOf(const Config::Tenant& tenant) {
  core::Budget budget;
  budget.reserved_bytes = tenant.reserved_bytes;
  budget.limit_bytes = tenant.limit_bytes;
  budget.weight = tenant.weight;
  budget.disk_reserved_bytes = tenant.disk_reserved_bytes;
  budget.disk_bytes = tenant.disk_bytes;
  budget.remote_bytes = tenant.remote_bytes;
  budget.counts = {tenant.sessions_max, tenant.sequences_max, tenant.models_max,
                   tenant.snapshots_max, tenant.prefixes_max};
  for (const Config::TenantGpu& gpu : tenant.gpus) {
    budget.devices.push_back({gpu.name, gpu.reserved_bytes, gpu.limit_bytes, gpu.weight});
  }
  return budget;
}

void KeepBudget(const Config::Tenant& from, Config::Tenant* to) {
  to->reserved_bytes = from.reserved_bytes;
  to->limit_bytes = from.limit_bytes;
  to->weight = from.weight;
  to->disk_reserved_bytes = from.disk_reserved_bytes;
  to->disk_bytes = from.disk_bytes;
  to->remote_bytes = from.remote_bytes;
  to->sessions_max = from.sessions_max;
  to->sequences_max = from.sequences_max;
  to->models_max = from.models_max;
  to->snapshots_max = from.snapshots_max;
  to->prefixes_max = from.prefixes_max;
  to->gpus = from.gpus;
}

core::CoreConfig CoreConfigOf(const Config& config) {
  core::CoreConfig core;
  for (const Config::Tenant& tenant : config.tenants) {
    const core::Budget budget = BudgetOf(tenant);
    core.tenants.push_back({tenant.name, tenant.uids, tenant.limit_bytes, tenant.retention,
                            tenant.is_public, tenant.disk_bytes, tenant.degrade,
                            tenant.reserved_bytes, tenant.weight, tenant.gids, tenant.cgroups,
                            budget.disk_reserved_bytes, budget.remote_bytes, budget.counts,
                            budget.devices});
  }
  core.default_tenant = config.server.default_tenant;
  core.take_back_ms = config.memory.take_back_ms;
  core.starving_ms = config.memory.starving_ms;
  core.session_limits = {config.limits.sequences_per_session_max,
                         config.limits.models_per_session_max,
                         config.limits.extents_per_session_max,
                         config.limits.lanes_max,
                         config.limits.rows_max,
                         config.limits.table_arena_bytes};
  core.leases_per_session_max = config.limits.leases_per_session_max;
  core.lease_ms_max = config.prefix.lease_ms_max;
  core.eviction = config.prefix.eviction;
  core.write_down_high_percent = config.tier.write_down_high_percent;
  core.write_down_low_percent = config.tier.write_down_low_percent;
  core.sessions_max = config.limits.sessions_max;
  core.first_extent_bytes = config.memory.recent_extent_bytes;
  core.extent_bytes = config.memory.extent_bytes;
  return core;
}

}  // namespace kvasir
