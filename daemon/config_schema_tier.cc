// Rows of [tier].
#include "daemon/config_schema_rows.h"

namespace kvasir::schema {

std::vector<ConfigKey> TierKeys() {
  return {
      {.table = "tier",
       .name = "disk_path",
       .kind = ConfigKind::kFolder,
       .value = At<&C::tier, &C::Tier::disk_path>,
       .max = kPathMax,
       .description = "Folder of this daemon alone, on a local disk, for cached prefixes of which "
                      "every row is kept as written: they go there when a tenant's memory is "
                      "scarce and when the daemon stops, and are found there after a restart. "
                      "Empty: no disk tier."},
      {.table = "tier",
       .name = "disk_bytes",
       .kind = ConfigKind::kBytes,
       .value = At<&C::tier, &C::Tier::disk_bytes>,
       .unit = "bytes",
       .min = 64 * kMi,
       .max = 4 * kTi,
       .multiple_of = 64 * kMi,
       .description = "Space that is reserved there; from 64GiB on whole GiB of it are used."},
      {.table = "tier",
       .name = "redis_servers",
       .kind = ConfigKind::kServers,
       .value = At<&C::tier, &C::Tier::redis_servers>,
       .max = kPathMax,
       .description = "Redis or Valkey servers, \"host:port\" or \"unix:/path\" with commas "
                      "between, that several hosts share. A server that is gone costs its share "
                      "of the blocks. Empty: no remote tier."},
      {.table = "tier",
       .name = "redis_password_file",
       .kind = ConfigKind::kFolder,
       .value = At<&C::tier, &C::Tier::redis_password_file>,
       .max = kPathMax,
       .description = "File with the servers' password. Empty: none."},
      {.table = "tier",
       .name = "redis_tenant_bytes",
       .kind = ConfigKind::kBytes,
       .value = At<&C::tier, &C::Tier::redis_tenant_bytes>,
       .unit = "bytes",
       .min = kMi,
       .max = 64 * kTi,
       .description = "Of one tenant, that this host knows of there. What is really there is the "
                      "servers' maxmemory and their own eviction."},
      {.table = "tier",
       .name = "redis_refresh_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::tier, &C::Tier::redis_refresh_ms>,
       .unit = "ms",
       .min = 100,
       .max = 86'400'000,
       .description = "How often this host looks for prefixes that others have written."},
      {.table = "tier",
       .name = "key_file",
       .kind = ConfigKind::kFolder,
       .value = At<&C::tier, &C::Tier::key_file>,
       .max = kPathMax,
       .description = "The 16 secret bytes that prefixes are named with; made where it is not "
                      "there, mode 0600. Hosts that share servers need the same one. Empty: "
                      "prefix.key in disk_path, without that another one at each start."},
      {.table = "tier",
       .name = "load_wait_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::tier, &C::Tier::load_wait_ms>,
       .unit = "ms",
       .min = 0,
       .max = 600'000,
       .description = "How long opening a sequence waits at most for a prefix from a tier, and "
                      "never beyond half of the time that its call has; then it computes, and what "
                      "comes up is for later ones."},
      {.table = "tier",
       .name = "write_down_high_percent",
       .kind = ConfigKind::kInteger,
       .value = At<&C::tier, &C::Tier::write_down_high_percent>,
       .unit = "percent",
       .min = 1,
       .max = 100,
       .description =
           "Of a tenant's limit: above it, prefixes that were used more than once are "
           "written down, and then what is worth least leaves memory, or is made smaller "
           "as tenant.degrade says, with or without a tier.",
       .default_note = "80, or above write_down_low_percent"},
      {.table = "tier",
       .name = "write_down_low_percent",
       .kind = ConfigKind::kInteger,
       .value = At<&C::tier, &C::Tier::write_down_low_percent>,
       .unit = "percent",
       .min = 0,
       .max = 99,
       .description = "Below it that ends. Below write_down_high_percent.",
       .default_note = "60, or below write_down_high_percent"},
      {.table = "tier",
       .name = "stop_drain_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::tier, &C::Tier::stop_drain_ms>,
       .unit = "ms",
       .min = 0,
       .max = 3'600'000,
       .description = "How long the daemon writes prefixes down when it stops; the unit's "
                      "TimeoutStopSec must leave room for it."},
  };
}

}  // namespace kvasir::schema
