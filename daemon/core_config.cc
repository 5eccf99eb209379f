#include "daemon/core_config.h"

namespace kvasir {

core::CoreConfig CoreConfigOf(const Config& config) {
  core::CoreConfig core;
  for (const Config::Tenant& tenant : config.tenants) {
    core.tenants.push_back({tenant.name, tenant.uids, tenant.limit_bytes, tenant.retention,
                            tenant.is_public, tenant.disk_bytes, tenant.degrade,
                            tenant.reserved_bytes, tenant.weight, tenant.gids, tenant.cgroups});
  }
  core.default_tenant = config.server.default_tenant;
  core.take_back_ms = config.memory.take_back_ms;
  core.session_limits = {config.limits.sequences_per_session_max,
                         config.limits.models_per_session_max,
                         config.limits.extents_per_session_max,
                         config.limits.lanes_max,
                         config.limits.rows_max,
                         config.limits.table_arena_bytes};
  core.snapshots_per_tenant_max = config.limits.snapshots_per_tenant_max;
  core.leases_per_session_max = config.limits.leases_per_session_max;
  core.lease_ms_max = config.prefix.lease_ms_max;
  core.eviction = config.prefix.eviction;
  core.prefixes_per_tenant_max = config.prefix.per_tenant_max;
  core.write_down_high_percent = config.tier.write_down_high_percent;
  core.write_down_low_percent = config.tier.write_down_low_percent;
  core.sessions_max = config.limits.sessions_max;
  core.first_extent_bytes = config.memory.recent_extent_bytes;
  core.extent_bytes = config.memory.extent_bytes;
  return core;
}

}  // namespace kvasir
