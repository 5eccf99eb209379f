// The counts of all parts at one moment, for metrics and for GetStats.
#include <chrono>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "daemon/server.h"

namespace kvasir {
namespace {

DevicePoolSnapshot SnapshotOf(DeviceMemory& memory) {
  const device::DevicePoolCounts counts = memory.pool().counts();
  const device::DeviceFacts& facts = memory.facts();
  DevicePoolSnapshot snapshot;
  snapshot.pool = memory.name();
  snapshot.device_name = facts.name;
  snapshot.device_uuid = facts.uuid;
  snapshot.pool_bytes = counts.pool_bytes;
  snapshot.charged_bytes = counts.charged_bytes;
  snapshot.idle_bytes = counts.idle_bytes;
  snapshot.waste_bytes = counts.waste_bytes;
  snapshot.granularity_bytes = facts.granularity_bytes;
  snapshot.extents = counts.extents;
  snapshot.device_total_bytes = facts.total_bytes;
  const absl::StatusOr<uint64_t> free = memory.device().FreeBytes();
  if (free.ok()) {
    snapshot.device_free_bytes = *free;
  } else {
    snapshot.lost = MessageOf(free.status());
  }
  return snapshot;
}

}  // namespace

StatsSnapshot Server::Snapshot() {
  StatsSnapshot snapshot;
  snapshot.boot_epoch = boot_epoch_;
  snapshot.version = KVASIR_VERSION;
  snapshot.uptime_ms = static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(SystemClock().Now() - started_)
          .count());
  std::vector<core::TenantReport> tenants;
  std::vector<core::DemandReport> demands;  // of the same tenants
  {
    MutexLock lock(shared_->mutex);
    tenants = shared_->core.TenantReports();
    demands = shared_->core.DemandReports();
  }
  snapshot.tiers = tier_workers_->Snapshots();
  const HostPoolCounts pool = pool_->counts();
  snapshot.pool_bytes = pool.pool_bytes;
  snapshot.pool_free_bytes = pool.ready_bytes + pool.idle_bytes;
  snapshot.pool_ready_bytes = pool.ready_bytes;
  snapshot.memory_locked = pool.locked;
  snapshot.late_faults = pool.late_faults;
  snapshot.lock_wait_ns = static_cast<uint64_t>(shared_->mutex.whole_waits().time.count());
  snapshot.share_wait_ns = static_cast<uint64_t>(shared_->mutex.shard_waits().time.count());
  snapshot.pool_wanted_bytes = pool_size_->wanted_bytes();
  snapshot.pool_configured_bytes = config_.memory.pool_bytes;
  snapshot.memory_pressure_shrinks = pool_size_->pressure_shrinks();
  snapshot.unidentified_peers = unidentified_peers_.load(std::memory_order_relaxed);
  for (const auto& memory : devices_) snapshot.device_pools.push_back(SnapshotOf(*memory));
  const AuditCounts audit = audit_.counts();
  snapshot.audit_acts = audit.acts;
  snapshot.audit_refusals = audit.refusals;
  snapshot.audit_suppressed = audit.suppressed;
  for (const core::TenantReport& tenant : tenants) {
    snapshot.held_bytes += tenant.held_bytes;
    snapshot.charged_bytes += tenant.charged_bytes;
    snapshot.tenants.push_back({tenant.name,
                                tenant.held_bytes,
                                tenant.charged_bytes,
                                tenant.limit_bytes,
                                tenant.sessions,
                                tenant.sequences,
                                tenant.rows_seen,
                                tenant.rows_kept,
                                tenant.counters.compactions,
                                tenant.counters.rejected_calls,
                                tenant.counters.violations,
                                tenant.snapshots,
                                tenant.snapshot_bytes,
                                tenant.counters.snapshots_dropped,
                                tenant.prefixes,
                                tenant.prefix_bytes,
                                tenant.counters.prefix_lookups,
                                tenant.counters.prefix_hits,
                                tenant.counters.prefix_rows,
                                tenant.counters.prefix_rows_hit,
                                tenant.prefix_chunks,
                                tenant.prefix_metadata_bytes,
                                tenant.frozen_bytes,
                                tenant.handover_prefixes,
                                tenant.prefix_leases});
    TenantSnapshot& added = snapshot.tenants.back();
    added.condensings = tenant.counters.condensings;
    added.condensed_rows = tenant.counters.condensed_rows;
    added.condensed_bytes = tenant.counters.condensed_bytes;
    added.condensing_failures = tenant.counters.condensing_failures;
    added.reserved_bytes = tenant.reserved_bytes;
    added.weight = tenant.weight;
    added.own_bytes = tenant.own_bytes;
    added.wanted_back_bytes = tenant.wanted_back_bytes;
    added.taken_back_bytes = tenant.taken_back_bytes;
    added.sequences_taken_back = tenant.counters.sequences_taken_back;
    added.sessions_taken_back = tenant.counters.sessions_taken_back;
    added.bytes_taken_back = tenant.counters.bytes_taken_back;
    added.budget = tenant.budget;
    added.models = tenant.models;
    for (const core::DeviceReport& device : tenant.devices) {
      added.devices.push_back({device.pool, device.held_bytes, device.charged_bytes,
                               device.waste_bytes, device.own_bytes, device.budget.limit_bytes,
                               device.offloads});
    }
    added.foretold = tenant.foretold;
    added.foretold_tau = tenant.foretold_tau;
    added.typical_response_rows = tenant.typical_response_rows;
    added.suspensions_asked = tenant.counters.suspensions_asked;
    const size_t slot = snapshot.tenants.size() - 1;
    added.calls = calls_->inside(slot);
    added.calls_refused = calls_->refused(slot);
    for (const core::HitRatePoint& point : demands[snapshot.tenants.size() - 1].demand.points) {
      added.hit_ratios.emplace_back(point.times, point.hit_ratio);
    }
  }
  return snapshot;
}

}  // namespace kvasir
