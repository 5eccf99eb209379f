#include "daemon/config_schema.h"

#include <algorithm>

#include "daemon/config_schema_rows.h"
#include "daemon/core/tenant_rules.h"

namespace kvasir {
namespace schema {
namespace {

std::vector<ConfigKey> ServerKeys() {
  return {
      {.table = "server",
       .name = "control_socket",
       .kind = ConfigKind::kSocket,
       .value = At<&C::server, &C::Server::control_socket>,
       .unit = "path",
       .min = 2,
       .max = kSocketPathMax,
       .description = "Unix socket of the gRPC services."},
      {.table = "server",
       .name = "data_socket",
       .kind = ConfigKind::kSocket,
       .value = At<&C::server, &C::Server::data_socket>,
       .unit = "path",
       .min = 2,
       .max = kSocketPathMax,
       .description = "Unix socket that hands out shared memory. Must not be the control socket."},
      {.table = "server",
       .name = "socket_mode",
       .kind = ConfigKind::kFileMode,
       .value = At<&C::server, &C::Server::socket_mode>,
       .unit = "octal file mode",
       .min = 0600,
       .max = 0777,
       .description = "File mode of both sockets. Callers are told apart by their credentials, "
                      "so that everybody may knock; narrow it to keep others away altogether."},
      {.table = "server",
       .name = "default_tenant",
       .kind = ConfigKind::kName,
       .value = At<&C::server, &C::Server::default_tenant>,
       .min = 0,
       .max = 64,
       .description = "Tenant of peers whose cgroup, uid and gid no tenant names. Empty: they are "
                      "refused."},
      {.table = "server",
       .name = "log_level",
       .kind = ConfigKind::kChoice,
       .value = At<&C::server, &C::Server::log_level>,
       .choices = {"trace", "debug", "info", "warn", "error"},
       .needs_restart = false,
       .description = "Lines below this level are not written."},
      {.table = "server",
       .name = "log_format",
       .kind = ConfigKind::kChoice,
       .value = At<&C::server, &C::Server::log_format>,
       .choices = {"text", "json"},
       .description = "Lines for people, or one JSON object a line."},
      {.table = "server",
       .name = "metrics_listen",
       .kind = ConfigKind::kListen,
       .value = At<&C::server, &C::Server::metrics_listen>,
       .unit = "address:port",
       .min = 0,
       .max = 64,
       .description = "Where Prometheus reads /metrics, e.g. 127.0.0.1:9464. Port 0: any free "
                      "port. Empty: nowhere. Only loopback unless metrics_allow_remote is set."},
      {.table = "server",
       .name = "metrics_allow_remote",
       .kind = ConfigKind::kBoolean,
       .value = At<&C::server, &C::Server::metrics_allow_remote>,
       .description = "Lets metrics_listen name an address that other hosts reach. The endpoint "
                      "has no access control and shows tenant names."},
      {.table = "server",
       .name = "worker_threads",
       .kind = ConfigKind::kInteger,
       .value = At<&C::server, &C::Server::worker_threads>,
       .unit = "threads",
       .min = 1,
       .max = 64,
       .description = "Threads that copy kept rows. One more prefaults memory."},
      {.table = "server",
       .name = "rpc_threads",
       .kind = ConfigKind::kInteger,
       .value = At<&C::server, &C::Server::rpc_threads>,
       .unit = "threads",
       .min = 1,
       .max = 64,
       .description = "Threads that answer gRPC calls."},
  };
}

std::vector<ConfigKey> LimitKeys() {
  return {
      {.table = "limits",
       .name = "sessions_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::sessions_max>,
       .unit = "sessions",
       .min = 1,
       .max = 65536,
       .description = "Connected engine processes, all tenants together."},
      {.table = "limits",
       .name = "sequences_per_session_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::sequences_per_session_max>,
       .unit = "sequences",
       .min = 1,
       .max = 1024,
       .description = "Open sequences of one session."},
      {.table = "limits",
       .name = "snapshots_per_tenant_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::snapshots_per_tenant_max>,
       .unit = "snapshots",
       .min = 0,
       .max = 4096,
       .description = "Saved sequences of one tenant; 0: none may be saved."},
      {.table = "limits",
       .name = "models_per_session_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::models_per_session_max>,
       .unit = "models",
       .min = 1,
       .max = 256,
       .description = "Models that one session may register."},
      {.table = "limits",
       .name = "leases_per_session_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::leases_per_session_max>,
       .unit = "leases",
       .min = 0,
       .max = 4096,
       .description = "Leases of prefixes that one session may have; 0: none may be taken."},
      {.table = "limits",
       .name = "lanes_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::lanes_max>,
       .unit = "lanes",
       .min = 1,
       .max = 1024,
       .description = "Lanes of one sequence: groups of layers that keep the same tokens."},
      {.table = "limits",
       .name = "rows_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::rows_max>,
       .unit = "rows",
       .min = 128,
       .max = kMax32,
       .description = "Rows of one sequence that are not compacted yet, the granted ones included; "
                      "with full retention its length. Sizes its directory in the session's table "
                      "arena: 16 bytes a block and lane."},
      {.table = "limits",
       .name = "extents_per_session_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::extents_per_session_max>,
       .unit = "extents",
       .min = 1,
       .max = 65536,
       .description = "Extents that one session may have open."},
      {.table = "limits",
       .name = "table_arena_bytes",
       .kind = ConfigKind::kBytes,
       .value = At<&C::limits, &C::Limits::table_arena_bytes>,
       .unit = "bytes",
       .min = 65536,
       .max = kGi,
       .multiple_of = kPage,
       .description = "Shared memory of one session for the tables of its sequences."},
      {.table = "limits",
       .name = "rpc_deadline_max_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::rpc_deadline_max_ms>,
       .unit = "ms",
       .min = 100,
       .max = 3'600'000,
       .description = "Longest time that a call may wait, whatever it asks for."},
      {.table = "limits",
       .name = "hello_timeout_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::hello_timeout_ms>,
       .unit = "ms",
       .min = 10,
       .max = 60'000,
       .description = "A connection on the data socket that has not said who it is by then is "
                      "closed."},
  };
}

std::vector<ConfigKey> PeopleKeys() {
  return {
      {.table = "retention",
       .name = "default",
       .kind = ConfigKind::kRetention,
       .value = At<&C::retention, &C::Retention::default_spec>,
       .unit = "policy grammar",
       .min = 1,
       .max = kSpecMax,
       .description = "Which tokens a sequence keeps that asks for nothing, e.g. full or "
                      "sepllm:init_cache_size=4,local_size=256. kvasirctl policies lists them. An "
                      "engine that does not read encoded rows gets the part before the '+'.",
       .sample = "full+int8",
       .sample_note =
           "full+int8 is what measurements recommend where nothing is known of the model: SmolLM2-"
           "135M, three texts of 2,048 tokens, bytes held and KL to full retention: full+int8 "
           "58.0%, .0000; full+tm64:k_bits=4.25,v_bits=4 33.9%, .0009; full+int4 34.4%, .0036; "
           "full+tm64:k_bits=3.25,v_bits=2.75 27.1%, .0040. sepllm is for models trained with it. "
           "Measure yours: kvasir-generate --recommend --bytes 25% --text FILE."},
      {.table = "retention",
       .name = "profile_dir",
       .kind = ConfigKind::kFolder,
       .value = At<&C::retention, &C::Retention::profile_dir>,
       .unit = "path",
       .min = 0,
       .max = kPathMax,
       .description = "Folder of model profiles: every *.json file in it, written by "
                      "kvasir-generate --profile, makes token-mixed rows of its model better. "
                      "Empty: none."},
      {.table = "prefix",
       .name = "eviction",
       .kind = ConfigKind::kChoice,
       .value = At<&C::prefix, &C::Prefix::eviction>,
       .choices = {"return-hazard", "lru", "arc", "s3-fifo", "w-tinylfu", "lfu"},
       .description = "Which cached prefixes of a tenant make room: docs/eviction.md. "
                      "return-hazard learns from the tenant's traffic."},
      {.table = "prefix",
       .name = "per_tenant_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::prefix, &C::Prefix::per_tenant_max>,
       .unit = "prefixes",
       .min = 1,
       .max = 65536,
       .description = "Cached prefixes of one tenant; one more pushes another out."},
      {.table = "prefix",
       .name = "lease_ms_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::prefix, &C::Prefix::lease_ms_max>,
       .unit = "ms",
       .min = 1,
       .max = 3'600'000,
       .description = "Longest time for which a prefix may be leased, and that of a lease that "
                      "asks for none. What is leased stays in memory, whoever needs room."},
      {.table = "prefix",
       .name = "state_dir",
       .kind = ConfigKind::kFolder,
       .value = At<&C::prefix, &C::Prefix::state_dir>,
       .unit = "path",
       .max = kPathMax,
       .description = "Folder where what eviction has learned outlives the daemon, e.g. "
                      "/var/lib/kvasir. Empty: it learns anew after each start."},
      {.table = "admin",
       .name = "uids",
       .kind = ConfigKind::kIds,
       .value = At<&C::admin, &C::Admin::uids>,
       .unit = "uid",
       .min = 0,
       .max = kMax32 - 1,
       .description =
           "Users who may see every tenant and act on all. root and the daemon's own user "
           "may as well, but in a container (a process or user namespace of its own) "
           "only where they are named here."},
      {.table = "tenant",
       .name = "name",
       .kind = ConfigKind::kName,
       .value = Of<&C::Tenant::name>,
       .min = 1,
       .max = 64,
       .description = "1 to 64 characters of a-z, 0-9, '_', '.', '-'.",
       .default_note = "required"},
      {.table = "tenant",
       .name = "uids",
       .kind = ConfigKind::kIds,
       .value = Of<&C::Tenant::uids>,
       .unit = "uid",
       .min = 0,
       .max = kMax32 - 1,
       .description = "Users whose processes act for this tenant, unless their cgroup is another "
                      "tenant's. A uid has one tenant."},
      {.table = "tenant",
       .name = "gids",
       .kind = ConfigKind::kIds,
       .value = Of<&C::Tenant::gids>,
       .unit = "gid",
       .min = 0,
       .max = kMax32 - 1,
       .description = "Groups whose processes act for this tenant, where neither their cgroup nor "
                      "their uid has one. The effective group counts, no supplementary one. A gid "
                      "has one tenant."},
      {.table = "tenant",
       .name = "cgroups",
       .kind = ConfigKind::kCgroups,
       .value = Of<&C::Tenant::cgroups>,
       .unit = "cgroup v2 path",
       .min = 2,
       .max = core::kCgroupPatternBytesMax,
       .description = "Cgroups whose processes act for this tenant, each with all below it, e.g. "
                      "/system.slice/llm-a.service; a component * is any one name. The pattern "
                      "with most components decides, before any uid or gid."},
      {.table = "tenant",
       .name = "limit_bytes",
       .kind = ConfigKind::kBytes,
       .value = Of<&C::Tenant::limit_bytes>,
       .unit = "bytes",
       .min = kMi,
       .max = 64 * kTi,
       .multiple_of = kPage,
       .needs_restart = false,
       .description = "Extents that the tenant may own, in bytes. At most memory.pool_bytes.",
       .default_note = "memory.pool_bytes"},
      {.table = "tenant",
       .name = "reserved_bytes",
       .kind = ConfigKind::kBytes,
       .value = Of<&C::Tenant::reserved_bytes>,
       .unit = "bytes",
       .min = 0,
       .max = 64 * kTi,
       .multiple_of = kPage,
       .needs_restart = false,
       .description = "Of the pool, always this tenant's. While it does not use them, others may: "
                      "it gets them back when it wants them (memory.take_back_ms). At most "
                      "limit_bytes; all tenants' together at most memory.pool_bytes."},
      {.table = "tenant",
       .name = "weight",
       .kind = ConfigKind::kInteger,
       .value = Of<&C::Tenant::weight>,
       .min = 1,
       .max = 10'000,
       .needs_restart = false,
       .description = "This tenant's part of what is scarce, beside the others': with 1, 2 and 4, "
                      "the third gets four times what the first gets."},
      {.table = "tenant",
       .name = "retention",
       .kind = ConfigKind::kRetention,
       .value = Of<&C::Tenant::retention>,
       .unit = "policy grammar",
       .min = 1,
       .max = kSpecMax,
       .description = "Default of this tenant's sequences.",
       .default_note = "retention.default"},
      {.table = "tenant",
       .name = "public",
       .kind = ConfigKind::kBoolean,
       .value = Of<&C::Tenant::is_public>,
       .description = "Prefixes that this tenant publishes are found by every tenant, such as "
                      "system prompts. All of its kept rows may lie in the memory that others map "
                      "to read them: give it no private work."},
      {.table = "tenant",
       .name = "disk_bytes",
       .kind = ConfigKind::kBytes,
       .value = Of<&C::Tenant::disk_bytes>,
       .unit = "bytes",
       .min = 0,
       .max = 4 * kTi,
       .description = "What this tenant may have in the disk tier.",
       .default_note = "an equal share of tier.disk_bytes"},
      {.table = "tenant",
       .name = "degrade",
       .kind = ConfigKind::kLadder,
       .value = Of<&C::Tenant::degrade>,
       .unit = "policy grammar",
       .min = 1,
       .max = kSpecMax,
       .description =
           "What becomes of this tenant's cached prefixes, rung by rung, before they are given up: "
           "each rung leaves less than the one before, e.g. [\"full+int8\", "
           "\"sepllm:init_cache_size=4,local_size=256\"]. Between the watermarks of [tier]; found "
           "only by who says least_quality. Empty: they are given up as they are."},
  };
}

}  // namespace
}  // namespace schema

std::span<const ConfigKey> ConfigSchema() {
  static const std::vector<ConfigKey> rows = [] {
    std::vector<ConfigKey> all;
    for (auto keys : {schema::ServerKeys(), schema::MemoryKeys(), schema::LimitKeys(),
                      schema::TierKeys(), schema::PeopleKeys()}) {
      all.insert(all.end(), keys.begin(), keys.end());
    }
    return all;
  }();
  return rows;
}

const ConfigKey* FindConfigKey(std::string_view table, std::string_view name) {
  const auto rows = ConfigSchema();
  const auto at = std::find_if(rows.begin(), rows.end(), [&](const ConfigKey& key) {
    return key.table == table && key.name == name;
  });
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace kvasir
