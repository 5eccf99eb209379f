// Metrics: the daemon's counts in Prometheus form, at http://<metrics_listen>/metrics.
//
// Pulled, not pushed: each scrape calls a snapshot function and turns its plain values into metric
// families, so that nothing is counted twice and kvasirctl stats agrees with Prometheus to the
// byte. Bytes are held as doubles by Prometheus: exact below 2^53.
#ifndef KVASIR_DAEMON_METRICS_H_
#define KVASIR_DAEMON_METRICS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "daemon/core/budget.h"
#include "daemon/core/offload_counters.h"

#include <prometheus/metric_family.h>

namespace kvasir {

// What one tenant has of the pool of one device.
struct TenantDeviceSnapshot {
  std::string pool;
  uint64_t held_bytes = 0;
  uint64_t charged_bytes = 0;
  uint64_t waste_bytes = 0;  // of charged_bytes, what rounding to the granularity takes
  uint64_t own_bytes = 0;
  uint64_t limit_bytes = 0;
  core::OffloadCounters offloads = {};
};

struct DevicePoolSnapshot {
  std::string pool, device_name, device_uuid;
  uint64_t pool_bytes = 0;
  uint64_t charged_bytes = 0;
  uint64_t idle_bytes = 0;
  uint64_t waste_bytes = 0;
  uint64_t granularity_bytes = 0;
  uint64_t extents = 0;
  uint64_t device_free_bytes = 0;  // of the whole device; 0 of one that is lost
  uint64_t device_total_bytes = 0;
  std::string lost;  // why it is; "": it is there
};

// The same counts as GetStatsResponse of proto/kvasir/v1/admin.proto.
struct TenantSnapshot {
  std::string tenant;
  uint64_t held_bytes = 0;     // allocated block groups
  uint64_t charged_bytes = 0;  // extents owned; what the limit applies to
  uint64_t limit_bytes = 0;
  uint32_t sessions = 0;
  uint32_t sequences = 0;
  uint64_t rows_seen = 0;
  uint64_t rows_kept = 0;
  uint64_t compactions = 0;
  uint64_t rejected_calls = 0;
  uint64_t violations = 0;
  uint64_t snapshots = 0;
  uint64_t snapshot_bytes = 0;     // groups that they name, each once
  uint64_t snapshots_dropped = 0;  // to make room
  uint64_t prefixes = 0;
  uint64_t prefix_bytes = 0;  // as snapshot_bytes
  uint64_t prefix_lookups = 0;
  uint64_t prefix_hits = 0;
  uint64_t prefix_rows = 0;
  uint64_t prefix_rows_hit = 0;
  uint64_t prefix_chunks = 0;
  uint64_t prefix_metadata_bytes = 0;
  uint64_t frozen_bytes = 0;
  uint64_t handover_prefixes = 0;
  uint64_t prefix_leases = 0;
  // What memory of other sizes would have hit: times of the limit, ratio.
  std::vector<std::pair<double, double>> hit_ratios = {};
  // Prefixes that were brought into a smaller form; bytes that they hold less for it.
  uint64_t condensings = 0;
  uint64_t condensed_rows = 0;
  uint64_t condensed_bytes = 0;
  uint64_t condensing_failures = 0;
  uint64_t reserved_bytes = 0;
  uint32_t weight = 1;
  uint64_t own_bytes = 0;          // of the pool, however much the others want
  uint64_t wanted_back_bytes = 0;  // that its sessions are asked for
  uint64_t taken_back_bytes = 0;   // charged still, since somebody holds on to them
  uint64_t sequences_taken_back = 0, sessions_taken_back = 0, bytes_taken_back = 0;
  core::Budget budget = {};
  uint32_t models = 0;
  uint64_t foretold = 0;  // of the last responses, those that an engine has foretold
  std::optional<double> foretold_tau = {};
  uint64_t typical_response_rows = 0;
  uint64_t suspensions_asked = 0;
  uint32_t calls = 0;  // under way
  uint64_t calls_refused = 0;
  std::vector<TenantDeviceSnapshot> devices = {};  // by pool
};

// What one tenant has in one tier.
struct StoredSnapshot {
  std::string tenant;
  uint64_t prefixes = 0;
  uint64_t stored_bytes = 0;
  uint64_t stores = 0;
  uint64_t store_failures = 0;
  uint64_t loads = 0;
  uint64_t load_rows = 0;
  uint64_t load_failures = 0;
  uint64_t loads_declined = 0;
};

struct TierSnapshot {
  std::string tier;
  bool left_out = false;
  std::vector<std::pair<std::string, uint64_t>> reads;  // blocks by outcome
  std::vector<StoredSnapshot> tenants;
};

struct StatsSnapshot {
  uint64_t boot_epoch = 0;
  std::string version;
  uint64_t uptime_ms = 0;
  uint64_t pool_bytes = 0;
  uint64_t pool_free_bytes = 0;
  uint64_t pool_ready_bytes = 0;
  uint64_t held_bytes = 0;
  uint64_t charged_bytes = 0;
  bool memory_locked = false;
  uint64_t late_faults = 0;
  uint64_t pool_wanted_bytes = 0;      // without memory pressure
  uint64_t pool_configured_bytes = 0;  // memory.pool_bytes
  uint64_t memory_pressure_shrinks = 0;
  uint64_t unidentified_peers = 0;
  std::vector<TenantSnapshot> tenants;
  std::vector<TierSnapshot> tiers;
  std::vector<DevicePoolSnapshot> device_pools = {};
  uint64_t audit_acts = 0;
  uint64_t audit_refusals = 0;
  uint64_t audit_suppressed = 0;
  // That threads have waited for the core's lock: as a whole, and for a tenant's share.
  uint64_t lock_wait_ns = 0, share_wait_ns = 0;
};

// Called on the endpoint's threads; must be thread-safe and must not wait.
using SnapshotFunction = std::function<StatsSnapshot()>;

// The families of one scrape; daemon/metric_names.h lists them. Pure.
std::vector<prometheus::MetricFamily> CollectMetrics(const StatsSnapshot& snapshot);

// An open endpoint; closes in the destructor, after the scrapes under way. Thread-safe.
// Cost of the destructor: up to 2 s, the interval at which the HTTP server looks whether to stop.
class MetricsEndpoint {
 public:
  virtual ~MetricsEndpoint() = default;
  virtual uint16_t port() const = 0;  // the one that was bound where port 0 was asked for
};

// Listens on `address` ("127.0.0.1:9464"). Which addresses are allowed is decided by the
// configuration. Errors: kUnavailable, with the address, when it cannot be bound.
absl::StatusOr<std::unique_ptr<MetricsEndpoint>> OpenMetricsEndpoint(const std::string& address,
                                                                     SnapshotFunction snapshot);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_METRICS_H_
