#include "daemon/config_checks.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>
#include <utility>

#include "base/error.h"
#include "daemon/server_addresses.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

namespace kvasir {
namespace {

constexpr uint64_t kHugePageBytes = 2 * kMiB;

class Checker {
 public:
  Checker(const Config& config, const ConfigLines& lines, ConfigFindings* findings)
      : config_(config), lines_(lines), findings_(*findings) {}

  void Run() {
    CheckServer();
    CheckMemory();
    CheckTier();
    CheckTenants();
    CheckGpus();
  }

 private:
  uint32_t LineOf(const std::string& key) const {
    const auto at = lines_.find(key);
    return at == lines_.end() ? 0 : at->second;
  }

  // Both keys are named; the line is that of `key` where the file sets it, else of the other one.
  void RequireAtMost(const std::string& key, uint64_t value, const std::string& bound_key,
                     uint64_t bound) {
    if (value <= bound) return;
    const uint32_t line = LineOf(key);
    findings_.Add(line != 0 ? line : LineOf(bound_key),
                  fmt::format("larger than {}: key={} given_bytes={} max_bytes={}", bound_key, key,
                              value, bound));
  }

  void CheckServer() {
    const Config::Server& server = config_.server;
    const auto normal = [](const std::string& path) {
      return std::filesystem::path(path).lexically_normal();
    };
    if (normal(server.control_socket) == normal(server.data_socket)) {
      findings_.Add(std::max(LineOf("server.data_socket"), LineOf("server.control_socket")),
                    fmt::format("same path for both sockets: key=server.data_socket given=\"{}\" "
                                "bound=must differ from server.control_socket",
                                server.data_socket));
    }
    const auto listen = ParseListenAddress(server.metrics_listen);
    if (listen.has_value() && !listen->loopback && !server.metrics_allow_remote) {
      findings_.Add(LineOf("server.metrics_listen"),
                    fmt::format("not a loopback address: key=server.metrics_listen given=\"{}\" "
                                "bound=127.0.0.0/8 or [::1] unless server.metrics_allow_remote",
                                server.metrics_listen));
    }
    const std::string& name = server.default_tenant;
    const auto is_it = [&name](const Config::Tenant& tenant) { return tenant.name == name; };
    if (!name.empty() && std::none_of(config_.tenants.begin(), config_.tenants.end(), is_it)) {
      findings_.Add(LineOf("server.default_tenant"),
                    fmt::format("unknown tenant: key=server.default_tenant given=\"{}\" "
                                "bound=the name of a [[tenant]]",
                                name));
    }
  }

  void CheckMemory() {
    const Config::Memory& memory = config_.memory;
    RequireAtMost("memory.extent_bytes", memory.extent_bytes, "memory.pool_bytes",
                  memory.pool_bytes);
    RequireAtMost("memory.recent_extent_bytes", memory.recent_extent_bytes, "memory.extent_bytes",
                  memory.extent_bytes);
    RequireAtMost("memory.ready_bytes", memory.ready_bytes, "memory.pool_bytes", memory.pool_bytes);
    if (memory.huge_pages == Config::Memory::HugePages::kOff) return;
    for (const auto& [key, value] :
         {std::pair("memory.extent_bytes", memory.extent_bytes),
          std::pair("memory.recent_extent_bytes", memory.recent_extent_bytes)}) {
      if (value % kHugePageBytes == 0) continue;
      const uint32_t line = LineOf(key);
      findings_.Add(line != 0 ? line : LineOf("memory.huge_pages"),
                    fmt::format("not whole huge pages: key={} given_bytes={} multiple_of_bytes={}",
                                key, value, kHugePageBytes));
    }
  }

  void CheckTier() {
    const Config::Tier& tier = config_.tier;
    if (tier.write_down_low_percent >= tier.write_down_high_percent) {
      findings_.Add(LineOf("tier.write_down_low_percent"),
                    fmt::format("no room between the watermarks: key=tier.write_down_low_percent "
                                "given={} max={} (tier.write_down_high_percent - 1)",
                                tier.write_down_low_percent, tier.write_down_high_percent - 1));
    }
    const absl::Status servers = ParseServerAddresses(tier.redis_servers).status();
    if (!servers.ok()) {
      findings_.Add(LineOf("tier.redis_servers"),
                    fmt::format("key=tier.redis_servers: {}", MessageOf(servers)));
    }
  }

  void CheckTenants() {
    std::set<std::string> names;
    std::map<std::string, std::string> owners;  // by "uid 5" and the like
    // Of at most 1,024 tenants with at most 2^46 bytes each.
    uint64_t reserved = 0, disk_reserved = 0;
    for (size_t i = 0; i < config_.tenants.size(); ++i) {
      const Config::Tenant& tenant = config_.tenants[i];
      const std::string prefix = fmt::format("tenant[{}].", i);
      if (!tenant.name.empty() && !names.insert(tenant.name).second) {
        findings_.Add(LineOf(prefix + "name"),
                      fmt::format("duplicate tenant: key={}name given=\"{}\" bound=unique", prefix,
                                  tenant.name));
      }
      const auto claim = [&](const char* what, const std::string& given, const std::string& quote) {
        const auto [at, fresh] = owners.emplace(fmt::format("{} {}", what, given), tenant.name);
        if (fresh) return;
        findings_.Add(LineOf(fmt::format("{}{}s", prefix, what)),
                      fmt::format("{} has a tenant already: key={}{}s given={}{}{} tenant=\"{}\" "
                                  "bound=one tenant for each {}",
                                  what, prefix, what, quote, given, quote, at->second, what));
      };
      for (const uint32_t uid : tenant.uids) claim("uid", fmt::format("{}", uid), "");
      for (const uint32_t gid : tenant.gids) claim("gid", fmt::format("{}", gid), "");
      for (const std::string& cgroup : tenant.cgroups) claim("cgroup", cgroup, "\"");
      RequireAtMost(prefix + "reserved_bytes", tenant.reserved_bytes, prefix + "limit_bytes",
                    tenant.limit_bytes);
      reserved += tenant.reserved_bytes;
      if (reserved > config_.memory.pool_bytes) {
        findings_.Add(LineOf(prefix + "reserved_bytes"),
                      fmt::format("tenants reserve more than there is: key={}reserved_bytes "
                                  "together_bytes={} max_bytes={} (memory.pool_bytes)",
                                  prefix, reserved, config_.memory.pool_bytes));
        reserved = 0;  // said once
      }
      RequireAtMost(prefix + "limit_bytes", tenant.limit_bytes, "memory.pool_bytes",
                    config_.memory.pool_bytes);
      RequireAtMost(prefix + "disk_reserved_bytes", tenant.disk_reserved_bytes,
                    prefix + "disk_bytes", tenant.disk_bytes);
      disk_reserved += tenant.disk_reserved_bytes;
      if (disk_reserved > config_.tier.disk_bytes) {
        findings_.Add(LineOf(prefix + "disk_reserved_bytes"),
                      fmt::format("tenants reserve more than there is: key={}disk_reserved_bytes "
                                  "together_bytes={} max_bytes={} (tier.disk_bytes)",
                                  prefix, disk_reserved, config_.tier.disk_bytes));
        disk_reserved = 0;
      }
      if (tenant.limit_bytes < config_.memory.recent_extent_bytes) {
        findings_.Add(LineOf(prefix + "limit_bytes"),
                      fmt::format("no room for one extent: key={}limit_bytes given_bytes={} "
                                  "min_bytes={} (memory.recent_extent_bytes)",
                                  prefix, tenant.limit_bytes, config_.memory.recent_extent_bytes));
      }
    }
  }

  void CheckGpus() {
    std::set<std::string> names, devices;
    for (size_t i = 0; i < config_.gpus.size(); ++i) {
      const Config::Gpu& gpu = config_.gpus[i];
      const std::string prefix = fmt::format("gpu[{}].", i);
      if (!names.insert(gpu.name).second) {
        findings_.Add(
            LineOf(prefix + "name"),
            fmt::format("duplicate gpu: key={}name given=\"{}\" bound=unique", prefix, gpu.name));
      }
      if (gpu.device != "host" && !devices.insert(gpu.device).second) {
        findings_.Add(LineOf(prefix + "device"),
                      fmt::format("a device of two pools: key={}device given=\"{}\" bound=unique",
                                  prefix, gpu.device));
      }
      RequireAtMost(prefix + "extent_bytes", gpu.extent_bytes, prefix + "pool_bytes",
                    gpu.pool_bytes);
      RequireAtMost(prefix + "recent_extent_bytes", gpu.recent_extent_bytes,
                    prefix + "extent_bytes", gpu.extent_bytes);
      CheckTenantsOf(gpu, i, prefix);
    }
  }

  void CheckTenantsOf(const Config::Gpu& gpu, size_t index, const std::string& prefix) {
    uint64_t reserved = 0;
    for (size_t i = 0; i < config_.tenants.size(); ++i) {
      const Config::TenantGpu& tenant = config_.tenants[i].gpus[index];
      const std::string key = fmt::format("tenant[{}].gpu.{}.", i, gpu.name);
      RequireAtMost(key + "reserved_bytes", tenant.reserved_bytes, key + "limit_bytes",
                    tenant.limit_bytes);
      RequireAtMost(key + "limit_bytes", tenant.limit_bytes, prefix + "pool_bytes", gpu.pool_bytes);
      reserved += tenant.reserved_bytes;
      if (reserved <= gpu.pool_bytes) continue;
      findings_.Add(LineOf(key + "reserved_bytes"),
                    fmt::format("tenants reserve more than there is: key={}reserved_bytes "
                                "together_bytes={} max_bytes={} ({}pool_bytes)",
                                key, reserved, gpu.pool_bytes, prefix));
      reserved = 0;  // said once
    }
  }

  const Config& config_;
  const ConfigLines& lines_;
  ConfigFindings& findings_;
};

}  // namespace

absl::Status ConfigFindings::ToStatus() const {
  if (found_.empty()) return absl::OkStatus();
  std::vector<Finding> sorted = found_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Finding& a, const Finding& b) { return a.line < b.line; });
  std::string text;
  const auto shown = std::min<size_t>(sorted.size(), kConfigErrorsMax);
  for (size_t i = 0; i < shown; ++i) {
    text +=
        fmt::format("{}{}:{}: {}", i == 0 ? "" : "\n", file_name_, sorted[i].line, sorted[i].text);
  }
  if (shown < sorted.size()) text += fmt::format("\nand {} more", sorted.size() - shown);
  return MakeError(absl::StatusCode::kInvalidArgument, text);
}

std::optional<ListenAddress> ParseListenAddress(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  ListenAddress address;
  const std::string_view port = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc() || end != port.data() + port.size()) return std::nullopt;
  address.host = text.substr(0, colon);
  if (address.host.front() == '[' && address.host.back() == ']') {
    in6_addr v6{};
    const std::string inner = address.host.substr(1, address.host.size() - 2);
    if (::inet_pton(AF_INET6, inner.c_str(), &v6) != 1) return std::nullopt;
    address.loopback = IN6_IS_ADDR_LOOPBACK(&v6);
    return address;
  }
  in_addr v4{};
  if (::inet_pton(AF_INET, address.host.c_str(), &v4) != 1) return std::nullopt;
  address.loopback = (ntohl(v4.s_addr) >> 24) == 127;
  return address;
}

void CheckConfig(const Config& config, const ConfigLines& lines, ConfigFindings* findings) {
  Checker(config, lines, findings).Run();
}

}  // namespace kvasir
