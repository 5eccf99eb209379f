#include "daemon/config_defaults.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

constexpr uint64_t kHugePageBytes = 2 * kMiB;

void FillCounts(const Config& config, const ConfigLines& lines, const std::string& prefix,
                Config::Tenant* tenant) {
  const Config::Limits& limits = config.limits;
  const auto fill = [&](const char* name, uint32_t value, uint32_t* field) {
    if (!lines.contains(prefix + name)) *field = value;
  };
  const auto tenants = static_cast<uint32_t>(config.tenants.size());
  fill("sessions_max", (limits.sessions_max + tenants - 1) / tenants, &tenant->sessions_max);
  fill("sequences_max", tenant->sessions_max * limits.sequences_per_session_max,
       &tenant->sequences_max);
  fill("models_max", tenant->sessions_max * limits.models_per_session_max, &tenant->models_max);
  fill("snapshots_max", limits.snapshots_per_tenant_max, &tenant->snapshots_max);
  fill("prefixes_max", config.prefix.per_tenant_max, &tenant->prefixes_max);
}

// One entry for each pool, in their order.
void FillGpus(const Config& config, Config::Tenant* tenant) {
  std::vector<Config::TenantGpu> gpus;
  for (const Config::Gpu& gpu : config.gpus) {
    const auto said = std::find_if(tenant->gpus.begin(), tenant->gpus.end(),
                                   [&](const auto& one) { return one.name == gpu.name; });
    gpus.push_back(said != tenant->gpus.end() ? *said
                                              : Config::TenantGpu{gpu.name, 0, gpu.pool_bytes, 1});
  }
  tenant->gpus = std::move(gpus);
}

}  // namespace

void FillConfigDefaults(const ConfigLines& lines, Config* config) {
  Config::Memory& memory = config->memory;
  if (!lines.contains("memory.extent_bytes")) {
    memory.extent_bytes =
        std::min(memory.extent_bytes, RoundDown(memory.pool_bytes, kHugePageBytes));
  }
  if (!lines.contains("memory.recent_extent_bytes")) {
    memory.recent_extent_bytes = std::min(memory.recent_extent_bytes, memory.extent_bytes);
  }
  if (!lines.contains("memory.ready_bytes")) {
    memory.ready_bytes = std::min(memory.ready_bytes, memory.pool_bytes);
  }
  Config::Tier& tier = config->tier;
  if (!lines.contains("tier.write_down_low_percent")) {
    tier.write_down_low_percent =
        std::min(tier.write_down_low_percent, tier.write_down_high_percent - 1);
  }
  if (!lines.contains("tier.write_down_high_percent")) {
    tier.write_down_high_percent =
        std::max(tier.write_down_high_percent, tier.write_down_low_percent + 1);
  }
  for (size_t i = 0; i < config->tenants.size(); ++i) {
    Config::Tenant& tenant = config->tenants[i];
    const std::string prefix = fmt::format("tenant[{}].", i);
    if (!lines.contains(prefix + "limit_bytes")) tenant.limit_bytes = memory.pool_bytes;
    if (tenant.retention.empty()) tenant.retention = config->retention.default_spec;
    if (!lines.contains(prefix + "disk_bytes")) {
      tenant.disk_bytes = config->tier.disk_bytes;
    }
    if (!lines.contains(prefix + "remote_bytes")) {
      tenant.remote_bytes = config->tier.redis_tenant_bytes;
    }
    FillCounts(*config, lines, prefix, &tenant);
    FillGpus(*config, &tenant);
  }
}

}  // namespace kvasir
