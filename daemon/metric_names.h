// Every metric of the daemon: name (unit last, _total for counters), type, help text, field.
//
// Dashboards and alert rules are written against these names: a rename is a breaking change.
#ifndef KVASIR_DAEMON_METRIC_NAMES_H_
#define KVASIR_DAEMON_METRIC_NAMES_H_

#include <limits>

#include "daemon/metrics.h"

namespace kvasir {

enum class MetricKind { kGauge, kCounter };

// One number of the daemon, or (Snapshot = TenantSnapshot) of each tenant, with label
// tenant="name".
template <typename Snapshot>
struct Metric {
  const char* name;
  MetricKind kind;
  const char* help;
  double (*value)(const Snapshot&);
};

inline constexpr Metric<StatsSnapshot> kDaemonMetrics[] = {
    {"kvasir_uptime_seconds", MetricKind::kGauge, "Time since the daemon started.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.uptime_ms) / 1000.0; }},
    {"kvasir_pool_bytes", MetricKind::kGauge, "Size of the host pool now.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.pool_bytes); }},
    {"kvasir_pool_free_bytes", MetricKind::kGauge, "Pool memory that is charged to nobody.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.pool_free_bytes); }},
    {"kvasir_pool_ready_bytes", MetricKind::kGauge, "Free pool memory that is prefaulted.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.pool_ready_bytes); }},
    {"kvasir_held_bytes", MetricKind::kGauge, "Bytes of allocated block groups.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.held_bytes); }},
    {"kvasir_charged_bytes", MetricKind::kGauge, "Bytes of extents that tenants own.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.charged_bytes); }},
    {"kvasir_memory_locked", MetricKind::kGauge, "1 if the pool cannot be swapped out, else 0.",
     [](const StatsSnapshot& s) { return s.memory_locked ? 1.0 : 0.0; }},
    {"kvasir_late_faults_total", MetricKind::kCounter,
     "Extents that had to be faulted while somebody waited.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.late_faults); }},
    {"kvasir_core_lock_wait_seconds_total", MetricKind::kCounter,
     "Time that threads have waited for the whole of the core's lock.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.lock_wait_ns) * 1e-9; }},
    {"kvasir_core_share_wait_seconds_total", MetricKind::kCounter,
     "Time that threads have waited for a tenant's share of it.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.share_wait_ns) * 1e-9; }},
    {"kvasir_pool_wanted_bytes", MetricKind::kGauge,
     "Size of the host pool without memory pressure: as configured, or as set since.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.pool_wanted_bytes); }},
    {"kvasir_memory_pressure_shrinks_total", MetricKind::kCounter,
     "Times that the pool was made smaller for memory pressure.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.memory_pressure_shrinks); }},
    {"kvasir_unidentified_peers_total", MetricKind::kCounter,
     "Connections refused because their process had ended or could not be identified.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.unidentified_peers); }},
    {"kvasir_audit_acts_total", MetricKind::kCounter, "Administrative acts, failed ones as well.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.audit_acts); }},
    {"kvasir_audit_refusals_total", MetricKind::kCounter,
     "Calls and sessions refused for who asked: no permission, no credentials, no room.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.audit_refusals); }},
    {"kvasir_audit_suppressed_total", MetricKind::kCounter,
     "Acts and refusals that were counted and not written to the log.",
     [](const StatsSnapshot& s) { return static_cast<double>(s.audit_suppressed); }},
};

// Labels: pool="name", device="uuid".
inline constexpr Metric<DevicePoolSnapshot> kDevicePoolMetrics[] = {
    {"kvasir_device_pool_bytes", MetricKind::kGauge, "Size of the pool of a device.",
     [](const DevicePoolSnapshot& d) { return static_cast<double>(d.pool_bytes); }},
    {"kvasir_device_pool_charged_bytes", MetricKind::kGauge,
     "Bytes of extents of the device that tenants own, rounding to its granularity included.",
     [](const DevicePoolSnapshot& d) { return static_cast<double>(d.charged_bytes); }},
    {"kvasir_device_pool_waste_bytes", MetricKind::kGauge,
     "Of the charged bytes, what rounding to the granularity takes.",
     [](const DevicePoolSnapshot& d) { return static_cast<double>(d.waste_bytes); }},
    {"kvasir_device_pool_granularity_bytes", MetricKind::kGauge,
     "An extent of the device takes a multiple of it.",
     [](const DevicePoolSnapshot& d) { return static_cast<double>(d.granularity_bytes); }},
    {"kvasir_device_free_bytes", MetricKind::kGauge,
     "Free memory of the whole device, others' use included; 0 of a device that is lost.",
     [](const DevicePoolSnapshot& d) { return static_cast<double>(d.device_free_bytes); }},
    {"kvasir_device_lost", MetricKind::kGauge, "1 if the device was lost, else 0.",
     [](const DevicePoolSnapshot& d) { return d.lost.empty() ? 0.0 : 1.0; }},
};

// Labels: tenant="name", pool="name".
inline constexpr Metric<TenantDeviceSnapshot> kTenantDeviceMetrics[] = {
    {"kvasir_tenant_device_held_bytes", MetricKind::kGauge,
     "Rows of the tenant's block groups in the device's memory.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.held_bytes); }},
    {"kvasir_tenant_device_charged_bytes", MetricKind::kGauge,
     "Bytes of the device's extents that the tenant owns.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.charged_bytes); }},
    {"kvasir_tenant_device_waste_bytes", MetricKind::kGauge,
     "Of these, what rounding to the granularity takes.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.waste_bytes); }},
    {"kvasir_tenant_device_own_bytes", MetricKind::kGauge,
     "Of the pool of the device, what it may have however much the others want.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.own_bytes); }},
    {"kvasir_tenant_device_limit_bytes", MetricKind::kGauge,
     "Most bytes of the device's extents that it may own.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.limit_bytes); }},
    {"kvasir_tenant_device_offload_stores_total", MetricKind::kCounter,
     "Cached prefixes and saved sequences that went from the device to host memory.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.offloads.stores); }},
    {"kvasir_tenant_device_offload_stored_bytes_total", MetricKind::kCounter,
     "Bytes that were copied for that.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.offloads.stored_bytes); }},
    {"kvasir_tenant_device_offload_loads_total", MetricKind::kCounter,
     "Cached prefixes and saved sequences that came from host memory to the device.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.offloads.loads); }},
    {"kvasir_tenant_device_offload_loaded_bytes_total", MetricKind::kCounter,
     "Bytes that were copied for that.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.offloads.loaded_bytes); }},
    {"kvasir_tenant_device_offload_failures_total", MetricKind::kCounter,
     "Moves between the device and host memory that had no room or were not copied.",
     [](const TenantDeviceSnapshot& d) { return static_cast<double>(d.offloads.failures); }},
};

// A gauge with labels tenant="name" and times="0.125" to "8".
inline constexpr char kHitRatioName[] = "kvasir_prefix_hit_ratio_at";
inline constexpr char kHitRatioHelp[] =
    "Share of the prompts' chunks that memory of so many times the tenant's limit would have had.";

inline constexpr Metric<TenantSnapshot> kTenantMetrics[] = {
    {"kvasir_tenant_held_bytes", MetricKind::kGauge, "Bytes of the tenant's block groups.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.held_bytes); }},
    {"kvasir_tenant_charged_bytes", MetricKind::kGauge, "Bytes of the extents the tenant owns.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.charged_bytes); }},
    {"kvasir_tenant_limit_bytes", MetricKind::kGauge, "Most bytes of extents it may own.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.limit_bytes); }},
    {"kvasir_tenant_reserved_bytes", MetricKind::kGauge, "Of the pool, reserved for it.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.reserved_bytes); }},
    {"kvasir_tenant_weight", MetricKind::kGauge, "Of its part of what is scarce.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.weight); }},
    {"kvasir_tenant_own_bytes", MetricKind::kGauge,
     "Of the pool, what it has for sure; what it is charged beyond is borrowed.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.own_bytes); }},
    {"kvasir_tenant_wanted_back_bytes", MetricKind::kGauge,
     "Borrowed bytes that its sessions are asked to give back.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.wanted_back_bytes); }},
    {"kvasir_tenant_taken_back_bytes", MetricKind::kGauge,
     "Bytes that it was charged for and that were taken back, while a process holds on to them.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.taken_back_bytes); }},
    {"kvasir_tenant_take_back_sequences_total", MetricKind::kCounter,
     "Sequences ended because other tenants wanted the memory that was borrowed.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.sequences_taken_back); }},
    {"kvasir_tenant_take_back_sessions_total", MetricKind::kCounter,
     "Sessions ended because other tenants wanted the memory that was borrowed.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.sessions_taken_back); }},
    {"kvasir_tenant_take_back_bytes_total", MetricKind::kCounter,
     "Bytes of extents that were taken from processes that held on to them.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.bytes_taken_back); }},
    {"kvasir_tenant_sessions", MetricKind::kGauge, "Connected engine processes.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.sessions); }},
    {"kvasir_tenant_sequences", MetricKind::kGauge, "Open sequences.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.sequences); }},
    {"kvasir_tenant_sessions_limit", MetricKind::kGauge, "Most engine processes it may connect.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.budget.counts.sessions); }},
    {"kvasir_tenant_sequences_limit", MetricKind::kGauge, "Most open sequences it may have.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.budget.counts.sequences); }},
    {"kvasir_tenant_models", MetricKind::kGauge, "Models that its sessions have registered.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.models); }},
    {"kvasir_tenant_calls", MetricKind::kGauge, "gRPC calls that are under way.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.calls); }},
    {"kvasir_tenant_calls_refused_total", MetricKind::kCounter,
     "gRPC calls refused because too many of the tenant were under way.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.calls_refused); }},
    {"kvasir_tenant_suspensions_asked_total", MetricKind::kCounter,
     "Sequences whose engines were asked to save and close them, since memory was short.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.suspensions_asked); }},
    {"kvasir_tenant_foretold_tau", MetricKind::kGauge,
     "Kendall's tau-b between how long its last responses were said to be and how long they were.",
     [](const TenantSnapshot& t) {
       return t.foretold_tau.value_or(std::numeric_limits<double>::quiet_NaN());
     }},
    {"kvasir_tenant_rows_seen", MetricKind::kGauge, "Tokens seen by the open sequences.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.rows_seen); }},
    {"kvasir_tenant_rows_kept", MetricKind::kGauge,
     "Tokens kept by the open sequences, each in the layer that keeps most.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.rows_kept); }},
    {"kvasir_tenant_compactions_total", MetricKind::kCounter, "Retention plans carried out.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.compactions); }},
    {"kvasir_tenant_rejected_calls_total", MetricKind::kCounter,
     "Calls refused: bad arguments, bad tokens, over the limit.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.rejected_calls); }},
    {"kvasir_tenant_violations_total", MetricKind::kCounter,
     "Sessions ended for what they wrote to shared memory.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.violations); }},
    {"kvasir_tenant_snapshots", MetricKind::kGauge, "Saved sequences.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.snapshots); }},
    {"kvasir_tenant_snapshot_bytes", MetricKind::kGauge,
     "Bytes of the block groups that snapshots name; sequences may name them, too.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.snapshot_bytes); }},
    {"kvasir_tenant_snapshots_dropped_total", MetricKind::kCounter,
     "Snapshots given up to make room for the tenant's sequences.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.snapshots_dropped); }},
    {"kvasir_tenant_prefixes", MetricKind::kGauge, "Cached prefixes.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefixes); }},
    {"kvasir_tenant_prefix_bytes", MetricKind::kGauge,
     "Bytes of the block groups that cached prefixes name; sequences may name them, too.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_bytes); }},
    {"kvasir_tenant_prefix_lookups_total", MetricKind::kCounter,
     "Sequences opened with a prefix that may be shared.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_lookups); }},
    {"kvasir_tenant_prefix_hits_total", MetricKind::kCounter,
     "Of those, such that went on from a cached prefix.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_hits); }},
    {"kvasir_tenant_prefix_rows_total", MetricKind::kCounter,
     "Tokens of the prompts that were looked up.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_rows); }},
    {"kvasir_tenant_prefix_rows_hit_total", MetricKind::kCounter,
     "Of those, tokens that were not computed again.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_rows_hit); }},
    {"kvasir_tenant_prefix_chunks", MetricKind::kGauge, "Cached chunks of 16 tokens.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_chunks); }},
    {"kvasir_tenant_prefix_metadata_bytes", MetricKind::kGauge,
     "Bytes of the daemon's own memory about cached chunks and those given up.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_metadata_bytes); }},
    {"kvasir_tenant_frozen_bytes", MetricKind::kGauge,
     "Bytes of extents of the process before, in which nothing new can be written.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.frozen_bytes); }},
    {"kvasir_tenant_handover_prefixes", MetricKind::kGauge,
     "Cached prefixes that are written down for the process after this one.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.handover_prefixes); }},
    {"kvasir_tenant_prefix_leases", MetricKind::kGauge,
     "Leases of prefixes that the tenant's sessions have.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.prefix_leases); }},
    {"kvasir_tenant_condensings_total", MetricKind::kCounter,
     "Cached prefixes brought into a form that holds less.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.condensings); }},
    {"kvasir_tenant_condensed_rows_total", MetricKind::kCounter, "Tokens of those.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.condensed_rows); }},
    {"kvasir_tenant_condensed_bytes_total", MetricKind::kCounter,
     "Bytes that those hold less for it.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.condensed_bytes); }},
    {"kvasir_tenant_condensing_failures_total", MetricKind::kCounter,
     "Cached prefixes of which that was begun and given up.",
     [](const TenantSnapshot& t) { return static_cast<double>(t.condensing_failures); }},
};

inline constexpr Metric<StoredSnapshot> kStoredMetrics[] = {
    {"kvasir_tier_prefixes", MetricKind::kGauge, "Prefixes that lie in the tier.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.prefixes); }},
    {"kvasir_tier_stored_bytes", MetricKind::kGauge, "Bytes of the tenant's values in the tier.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.stored_bytes); }},
    {"kvasir_tier_stores_total", MetricKind::kCounter, "Prefixes written to the tier.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.stores); }},
    {"kvasir_tier_store_failures_total", MetricKind::kCounter,
     "Prefixes that the tier could not take.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.store_failures); }},
    {"kvasir_tier_loads_total", MetricKind::kCounter, "Prefixes read back from the tier.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.loads); }},
    {"kvasir_tier_load_rows_total", MetricKind::kCounter, "Tokens of those.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.load_rows); }},
    {"kvasir_tier_load_failures_total", MetricKind::kCounter,
     "Prefixes of which reading back was begun that were a miss after all.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.load_failures); }},
    {"kvasir_tier_loads_declined_total", MetricKind::kCounter,
     "Opens that computed instead of reading back: that was said to be faster, or took too long.",
     [](const StoredSnapshot& s) { return static_cast<double>(s.loads_declined); }},
};

inline constexpr char kTierReadsName[] = "kvasir_tier_blocks_read_total";
inline constexpr char kTierReadsHelp[] = "Blocks asked of a tier, by what came of it.";
inline constexpr char kTierLeftOutName[] = "kvasir_tier_left_out";
inline constexpr char kTierLeftOutHelp[] = "1 while the tier fails and is not asked.";

}  // namespace kvasir

#endif  // KVASIR_DAEMON_METRIC_NAMES_H_
