// Config: the daemon's settings as plain values, read once at start from one TOML file.
//
// daemon/config_schema.h has one row for each key (unit, default, bounds, description, restart);
// parsing, --check-config, the sample file and the reference table are all made from those rows.
// Components get the group they need, never the whole. The rows say which keys need a restart.
//
// Everything in the file is checked here, once. Errors name file, line, key, given value and bound;
// all of them are reported, not only the first (at most kConfigErrorsMax).
#ifndef KVASIR_DAEMON_CONFIG_H_
#define KVASIR_DAEMON_CONFIG_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/bytes.h"
#include "base/log.h"

namespace kvasir {

inline constexpr int kConfigErrorsMax = 50;
inline constexpr uint64_t kConfigFileBytesMax = kMiB;
inline constexpr uint64_t kConfigTenantsMax = 1024;
inline constexpr uint64_t kConfigGpusMax = 64;
inline constexpr uint64_t kConfigRungsMax = 8;     // of a ladder, as text
inline constexpr uint64_t kConfigCgroupsMax = 64;  // of one tenant

struct Config {
  struct Server {
    std::string control_socket = "/run/kvasir/control.sock";
    std::string data_socket = "/run/kvasir/data.sock";
    uint32_t socket_mode = 0666;  // file mode; tenants are told apart by credentials, not by it
    std::string default_tenant;   // for peers that no tenant names; "": they are refused
    std::string log_level = "info";
    LogFormat log_format = LogFormat::kText;
    std::string metrics_listen;  // "address:port", "": no endpoint
    bool metrics_allow_remote = false;
    uint32_t worker_threads = 1;
    uint32_t rpc_threads = 4;
    uint32_t ring_threads = 0;  // 0: half of the processors, at most four
    friend bool operator==(const Server&, const Server&) = default;
  };

  struct Memory {
    enum class Lock { kRequire, kTry, kOff };
    enum class HugePages { kOff, kTry, kRequire };
    enum class Pressure { kOff, kTry };

    uint64_t pool_bytes = kGiB;
    uint64_t extent_bytes = 32 * kMiB;
    uint64_t recent_extent_bytes = 4 * kMiB;
    Lock lock = Lock::kTry;
    int32_t numa_node = -1;  // -1: any
    HugePages huge_pages = HugePages::kOff;
    bool prefault = true;
    uint64_t ready_bytes = 256 * kMiB;
    Pressure pressure = Pressure::kTry;
    std::string pressure_dir;  // "": the daemon's own cgroup
    uint32_t pressure_quiet_ms = 60'000;
    enum class Handover { kOff, kTry };
    Handover handover = Handover::kTry;
    uint32_t take_back_ms = 150;
    uint32_t starving_ms = 30'000;
    friend bool operator==(const Memory&, const Memory&) = default;
  };

  struct Limits {
    uint32_t sessions_max = 64;
    uint32_t sequences_per_session_max = 256;
    uint32_t snapshots_per_tenant_max = 64;
    uint32_t models_per_session_max = 8;
    uint32_t leases_per_session_max = 64;
    uint32_t lanes_max = 128;
    uint64_t rows_max = uint64_t{1} << 17;
    uint32_t extents_per_session_max = 4096;
    uint64_t table_arena_bytes = 16 * kMiB;
    uint32_t rpc_deadline_max_ms = 60'000;
    uint32_t hello_timeout_ms = 2'000;
    uint32_t calls_per_tenant_max = 128;
    uint32_t tenant_cpu_percent = 0;  // 0: an eighth of the processors
    uint32_t connections_per_tenant_max = 256;
    friend bool operator==(const Limits&, const Limits&) = default;
  };

  struct Retention {
    std::string default_spec = "full";
    std::string profile_dir;  // of *.json files of `kvasir-generate --profile`; "": none
    friend bool operator==(const Retention&, const Retention&) = default;
  };

  struct Prefix {
    std::string eviction = "return-hazard";
    uint32_t per_tenant_max = 4096;
    uint32_t lease_ms_max = 60'000;
    std::string state_dir;  // what eviction has learned; "": it is not kept
    friend bool operator==(const Prefix&, const Prefix&) = default;
  };

  // Where cached prefixes go when memory is scarce, and where they are found after a restart.
  struct Tier {
    std::string disk_path;  // "": none
    uint64_t disk_bytes = 16 * kGiB;
    std::string redis_servers;  // "host:port" or "unix:/path", with commas between; "": none
    std::string redis_password_file;
    uint64_t redis_tenant_bytes = 64 * kGiB;  // that this host knows of
    uint32_t redis_refresh_ms = 60'000;
    std::string key_file;  // "": in disk_path, or drawn at each start
    uint32_t write_down_high_percent = 80;
    uint32_t write_down_low_percent = 60;
    uint32_t stop_drain_ms = 10'000;
    uint32_t load_wait_ms = 5'000;
    friend bool operator==(const Tier&, const Tier&) = default;
  };

  struct Admin {
    std::vector<uint32_t> uids;
    friend bool operator==(const Admin&, const Admin&) = default;
  };

  // A device whose memory the daemon owns a part of.
  struct Gpu {
    std::string name;
    std::string device;  // "cuda:0", "GPU-<uuid>", or "host": host memory that behaves like one
    uint64_t pool_bytes = kGiB;
    uint64_t extent_bytes = 32 * kMiB;
    uint64_t recent_extent_bytes = 4 * kMiB;
    friend bool operator==(const Gpu&, const Gpu&) = default;
  };

  // What a tenant may have of one of them.
  struct TenantGpu {
    std::string name;  // of the Gpu
    uint64_t reserved_bytes = 0;
    uint64_t limit_bytes = 0;
    uint32_t weight = 1;
    friend bool operator==(const TenantGpu&, const TenantGpu&) = default;
  };

  // As parsed, limit_bytes and retention are never empty: what is left out is filled in from
  // memory.pool_bytes and retention.default.
  struct Tenant {
    std::string name;
    std::vector<uint32_t> uids;
    uint64_t limit_bytes = 0;
    std::string retention;
    bool is_public = false;
    uint64_t disk_bytes = 0;  // as parsed, of a configuration with a disk tier never 0
    uint64_t disk_reserved_bytes = 0;
    uint64_t remote_bytes = 64 * kGiB;
    // As parsed, no more than limits and prefix say where nothing else is said.
    uint32_t sessions_max = 65536;
    uint32_t sequences_max = 65536 * 1024;
    uint32_t models_max = 65536 * 256;
    uint32_t snapshots_max = 64;
    uint32_t prefixes_max = 4096;
    std::vector<std::string> degrade = {};  // what becomes of its cached prefixes, rung by rung
    std::vector<uint32_t> gids = {};
    std::vector<std::string> cgroups = {};  // patterns, as CheckCgroupPattern() says
    uint64_t reserved_bytes = 0;
    uint32_t weight = 1;
    std::vector<TenantGpu> gpus = {};  // as parsed one for each of `gpus`, in their order
    friend bool operator==(const Tenant&, const Tenant&) = default;
  };

  Server server;
  Memory memory;
  Limits limits;
  Retention retention;
  Prefix prefix;
  Tier tier;
  Admin admin;
  std::vector<Gpu> gpus;
  std::vector<Tenant> tenants;
  friend bool operator==(const Config&, const Config&) = default;
};

// Checks a retention spec (policy grammar). Passed in, so that reading a configuration needs no
// policy code. Null: specs are taken as they are.
using RetentionCheck = std::function<absl::Status(const std::string&)>;
// Likewise a ladder of specs (tenant.degrade), as a whole.
using LadderCheck = std::function<absl::Status(std::span<const std::string>)>;

// Parses and checks `text`; `file_name` is for the errors only. Pure.
// Errors: kInvalidArgument; one line for each finding, `file:line: text: key=... given=...
// bound=...`.
absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& file_name,
                                   const RetentionCheck& check_retention,
                                   const LadderCheck& check_ladder = {});

// Reads `path` (at most kConfigFileBytesMax bytes) and parses it.
// Errors: as ParseConfig(), and what open(2) and read(2) say, with the path.
absl::StatusOr<Config> LoadConfig(const std::string& path, const RetentionCheck& check_retention,
                                  const LadderCheck& check_ladder = {});

// Settings that are allowed but seldom meant, one sentence each, e.g. that nobody may connect.
std::vector<std::string> ConfigWarnings(const Config& config);

// Every setting as TOML. ENSURES: ParseConfig() of the result gives `config` again.
std::string EffectiveConfigToml(const Config& config);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONFIG_H_
