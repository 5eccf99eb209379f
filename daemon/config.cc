#include "daemon/config.h"

#include <algorithm>

#include "base/error.h"
#include "base/small_file.h"
#include "base/status_macros.h"
#include "daemon/config_checks.h"
#include "daemon/config_reader.h"

#include <fmt/format.h>

namespace kvasir {

absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& file_name,
                                   const RetentionCheck& check_retention,
                                   const LadderCheck& check_ladder) {
  ConfigFindings findings(file_name);
  ConfigLines lines;
  const Config config =
      ReadConfigText(text, file_name, {check_retention, check_ladder}, &lines, &findings);
  if (findings.empty()) CheckConfig(config, lines, &findings);
  KVASIR_RETURN_IF_ERROR(findings.ToStatus());
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& path, const RetentionCheck& check_retention,
                                  const LadderCheck& check_ladder) {
  KVASIR_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kConfigFileBytesMax));
  return ParseConfig(text, path, check_retention, check_ladder);
}

std::vector<std::string> ConfigWarnings(const Config& config) {
  std::vector<std::string> out;
  const Config::Server& server = config.server;
  const auto names_nobody = [](const Config::Tenant& tenant) {
    return tenant.uids.empty() && tenant.gids.empty() && tenant.cgroups.empty();
  };
  if (std::all_of(config.tenants.begin(), config.tenants.end(), names_nobody) &&
      server.default_tenant.empty()) {
    out.push_back("no peer has a tenant and server.default_tenant is empty: nobody can connect");
  }
  for (const Config::Tenant& tenant : config.tenants) {
    if (names_nobody(tenant) && tenant.name != server.default_tenant) {
      out.push_back(fmt::format(
          "tenant has no uids, gids or cgroups and is not the default: tenant={}", tenant.name));
    }
  }
  if (server.metrics_allow_remote && !server.metrics_listen.empty()) {
    out.push_back("server.metrics_allow_remote: anybody who reaches the port can read metrics");
  }
  for (const Config::Gpu& gpu : config.gpus) {
    if (gpu.device != "host") continue;
    out.push_back(fmt::format(
        "gpu.device is host: memory that stands in for a device's, beside memory.pool_bytes: "
        "gpu={}",
        gpu.name));
  }
  if (config.memory.lock == Config::Memory::Lock::kOff) {
    out.push_back("memory.lock is off: the pool may be swapped out");
  }
  return out;
}

}  // namespace kvasir
