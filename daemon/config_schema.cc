#include "daemon/config_schema.h"

#include <algorithm>

#include "daemon/config_schema_rows.h"

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
       .description =
           "Threads that run gRPC calls; of one tenant at most two at a time. Calls that "
           "wait take none."},
      {.table = "server",
       .name = "ring_threads",
       .kind = ConfigKind::kInteger,
       .value = At<&C::server, &C::Server::ring_threads>,
       .unit = "threads",
       .min = 0,
       .max = 64,
       .description = "Threads that serve command rings, those of a tenant by one. 0: half of the "
                      "processors, at most 4."},
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
      {.table = "limits",
       .name = "calls_per_tenant_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::calls_per_tenant_max>,
       .unit = "calls",
       .min = 4,
       .max = 4096,
       .description =
           "gRPC calls of one tenant that the daemon has accepted and not answered: those "
           "that wait included. More are refused, and the caller is told when to ask "
           "again. Beyond twice as many, answers that nobody reads included, the connection is "
           "closed, and new ones of that tenant are refused for a second; each time that it "
           "happens "
           "again for twice as long, up to 32."},
      {.table = "limits",
       .name = "tenant_cpu_percent",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::tenant_cpu_percent>,
       .unit = "percent",
       .min = 0,
       .max = 100'000,
       .description = "Of one processor: the time that the daemon spends on the calls and commands "
                      "of one tenant "
                      "while others ask for anything; what is beyond it waits. Alone a tenant has "
                      "all. 0: an eighth of the processors."},
      {.table = "limits",
       .name = "connections_per_tenant_max",
       .kind = ConfigKind::kInteger,
       .value = At<&C::limits, &C::Limits::connections_per_tenant_max>,
       .unit = "connections",
       .min = 1,
       .max = 65536,
       .description = "Connections of one tenant to the control socket; more are closed at once."},
  };
}

}  // namespace
}  // namespace schema

std::span<const ConfigKey> ConfigSchema() {
  static const std::vector<ConfigKey> rows = [] {
    std::vector<ConfigKey> all;
    for (auto keys :
         {schema::ServerKeys(), schema::MemoryKeys(), schema::LimitKeys(), schema::TierKeys(),
          schema::PeopleKeys(), schema::GpuKeys(), schema::TenantGpuKeys()}) {
      all.insert(all.end(), keys.begin(), keys.end());
    }
    return all;
  }();
  return rows;
}

bool IsConfigArray(std::string_view table) {
  return table == "gpu" || table == "tenant" || table == "tenant.gpu";
}

const ConfigKey* FindConfigKey(std::string_view table, std::string_view name) {
  const auto rows = ConfigSchema();
  const auto at = std::find_if(rows.begin(), rows.end(), [&](const ConfigKey& key) {
    return key.table == table && key.name == name;
  });
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace kvasir
