#include "daemon/control/admin_service.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "allocator/host_memory.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/control/budget_convert.h"
#include "daemon/control/device_counts.h"
#include "daemon/control/memory_counts.h"
#include "daemon/control/status_convert.h"
#include "policies/encoding_spec.h"
#include "policies/policy_registry.h"

namespace kvasir {
namespace {

constexpr uint32_t kPageSizeDefault = 1000, kPageSizeMax = 10'000;
constexpr uint32_t kInspectRowsDefault = 4096, kInspectRowsMax = 65'536;

void Fill(const core::SequenceReport& report, v1::SequenceInfo* info) {
  info->set_sequence_id(report.identity.id);
  info->set_tenant(report.tenant);
  info->set_session_id(report.session_id);
  info->set_model(report.model);
  info->set_retention(report.identity.retention);
  info->set_label(report.identity.label);
  info->set_rows_seen(report.summary.rows_seen);
  info->set_rows_kept(report.summary.rows_kept);
  info->set_held_bytes(report.summary.held_bytes);
  info->set_compactions(report.summary.compactions);
  info->set_version(report.summary.version);
  info->set_pid(report.pid);
  info->set_rollback_floor(report.summary.rollback_floor);
  v1::SequenceHints* const hints = info->mutable_hints();
  hints->set_priority(report.hints.priority);
  if (report.hints.predicted_rows) hints->set_predicted_rows(*report.hints.predicted_rows);
  if (report.hints.predicted_rank) hints->set_predicted_rank(*report.hints.predicted_rank);
  hints->set_request_age_ms(report.request_age_ms);
  info->set_suspend_wanted(report.suspend_wanted);
}

void Fill(const core::InspectedRow& row, v1::InspectedRow* out) {
  out->set_row(row.row.row);
  out->set_token(row.row.token);
  out->set_token_known(row.row.token_known);
  out->set_kept(row.row.kept_heads > 0);
  out->set_kept_heads(row.row.kept_heads);
  out->set_text(row.text);
}

void FillPolicy(const PolicyInfo& policy, v1::PolicyInfo* info) {
  info->set_name(policy.name);
  info->set_summary(policy.summary);
  info->set_source(policy.source);
  info->set_needs(policy.needs);
  info->set_shareable(policy.shareable);
  info->set_accepts_rules(policy.accepts_rules);
  for (const PolicyParameterInfo& parameter : policy.parameters) {
    v1::PolicyParameter* out = info->add_parameters();
    out->set_name(parameter.name);
    out->set_type(parameter.type);
    out->set_default_value(parameter.default_value);
    out->set_bounds(parameter.bounds);
    out->set_description(parameter.description);
    out->set_per_layer(parameter.per_layer);
  }
}

uint64_t LimitOf(__rlimit_resource resource) {
  rlimit limit{};
  return ::getrlimit(resource, &limit) == 0 ? limit.rlim_cur : 0;
}

// The kernel tells for a memfd of its own whether leases work on this host.
bool LeaseProbeWorks() {
  absl::StatusOr<std::unique_ptr<Extent>> extent = Extent::Create({kPageBytes, true, -1, false}, 0);
  return extent.ok() && (*extent)->Probe() == ProbeResult::kFree;
}

}  // namespace

absl::StatusOr<AdminService::Scope> AdminService::ScopeOf(const CallerRegistry::Caller& caller) {
  const core::Peer& peer = caller.peer;
  Scope scope{callers_.IsAdmin(peer), "", CredentialsOf(peer), caller.slot};
  if (scope.all) return scope;
  absl::Status unknown;
  {
    MutexLock lock(shared_.mutex);
    const absl::StatusOr<core::Tenant*> tenant = shared_.core.TenantOf(peer);
    if (tenant.ok()) scope.tenant = (*tenant)->config.name;
    unknown = tenant.status();
  }
  if (unknown.ok()) return scope;
  audit_.NoteRefusal({"admin_call", scope.peer, "", {}}, unknown);
  return unknown;
}

grpc::Status AdminService::Audited(const Scope& scope, std::string_view act,
                                   std::vector<std::pair<std::string_view, std::string>> arguments,
                                   const std::function<absl::Status()>& run) {
  const absl::Status result = run();
  audit_.Note({act, scope.peer, scope.tenant, std::move(arguments)}, result);
  return ToGrpc(result);
}

grpc::Status AdminService::GetStats(const Scope& scope, const v1::GetStatsRequest*,
                                    v1::GetStatsResponse* response) {
  const StatsSnapshot snapshot = snapshot_();
  response->set_boot_epoch(snapshot.boot_epoch);
  response->set_version(snapshot.version);
  response->set_uptime_ms(snapshot.uptime_ms);
  response->set_memory_locked(snapshot.memory_locked);
  if (scope.all) {
    response->set_pool_bytes(snapshot.pool_bytes);
    response->set_pool_free_bytes(snapshot.pool_free_bytes);
    response->set_pool_ready_bytes(snapshot.pool_ready_bytes);
    response->set_held_bytes(snapshot.held_bytes);
    response->set_charged_bytes(snapshot.charged_bytes);
    response->set_late_faults(snapshot.late_faults);
    response->set_pool_wanted_bytes(snapshot.pool_wanted_bytes);
    response->set_pool_configured_bytes(snapshot.pool_configured_bytes);
    response->set_memory_pressure_shrinks(snapshot.memory_pressure_shrinks);
    for (const DevicePoolSnapshot& pool : snapshot.device_pools) {
      FillPool(pool, response->add_device_pools());
    }
  }
  for (const TenantSnapshot& tenant : snapshot.tenants) {
    if (!scope.Sees(tenant.tenant)) continue;
    v1::TenantStats* stats = response->add_tenants();
    stats->set_tenant(tenant.tenant);
    Fill(tenant, stats->mutable_host());
    stats->set_sessions(tenant.sessions);
    stats->set_sequences(tenant.sequences);
    stats->set_rows_seen(tenant.rows_seen);
    stats->set_rows_kept(tenant.rows_kept);
    stats->set_compactions(tenant.compactions);
    stats->set_rejected_calls(tenant.rejected_calls);
    stats->set_violations(tenant.violations);
    stats->set_snapshots(tenant.snapshots);
    stats->set_snapshot_bytes(tenant.snapshot_bytes);
    stats->set_snapshots_dropped(tenant.snapshots_dropped);
    stats->set_prefixes(tenant.prefixes);
    stats->set_prefix_bytes(tenant.prefix_bytes);
    stats->set_prefix_lookups(tenant.prefix_lookups);
    stats->set_prefix_hits(tenant.prefix_hits);
    stats->set_prefix_rows(tenant.prefix_rows);
    stats->set_prefix_rows_hit(tenant.prefix_rows_hit);
    stats->set_prefix_chunks(tenant.prefix_chunks);
    stats->set_prefix_metadata_bytes(tenant.prefix_metadata_bytes);
    stats->set_prefix_leases(tenant.prefix_leases);
    stats->set_condensings(tenant.condensings);
    stats->set_condensed_rows(tenant.condensed_rows);
    stats->set_condensed_bytes(tenant.condensed_bytes);
    stats->set_condensing_failures(tenant.condensing_failures);
    kvasir::Fill(tenant.budget, stats->mutable_budget());
    stats->set_models(tenant.models);
    stats->set_foretold(tenant.foretold);
    if (tenant.foretold_tau) stats->set_foretold_tau(*tenant.foretold_tau);
    stats->set_typical_response_rows(tenant.typical_response_rows);
    stats->set_suspensions_asked(tenant.suspensions_asked);
    stats->set_calls(tenant.calls);
    stats->set_calls_refused(tenant.calls_refused);
    for (const TenantDeviceSnapshot& device : tenant.devices) {
      FillDevice(device, stats->add_devices());
    }
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::ListSequences(const Scope& scope,
                                         const v1::ListSequencesRequest* request,
                                         v1::ListSequencesResponse* response) {
  if (request->page_size() > kPageSizeMax) {
    return ToGrpc(InvalidArgument("page_size is out of bounds: value={} max={}",
                                  request->page_size(), kPageSizeMax));
  }
  const int page =
      static_cast<int>(request->page_size() == 0 ? kPageSizeDefault : request->page_size());
  MutexLock lock(shared_.mutex);
  response->set_boot_epoch(boot_epoch_);
  for (const core::SequenceReport& report : shared_.core.SequenceReports()) {
    if (report.identity.id <= request->page_token() || !scope.Sees(report.tenant)) continue;
    if (!request->tenant().empty() && request->tenant() != report.tenant) continue;
    if (response->sequences_size() == page) {
      response->set_next_page_token(response->sequences(page - 1).sequence_id());
      break;
    }
    Fill(report, response->add_sequences());
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::ListSnapshots(const Scope& scope,
                                         const v1::ListSnapshotsRequest* request,
                                         v1::ListSnapshotsResponse* response) {
  const Instant now = SystemClock().Now();
  MutexLock lock(shared_.mutex);
  response->set_boot_epoch(boot_epoch_);
  for (const core::SnapshotReport& report : shared_.core.SnapshotReports()) {
    if (!scope.Sees(report.tenant)) continue;
    if (!request->tenant().empty() && request->tenant() != report.tenant) continue;
    v1::SnapshotInfo* const info = response->add_snapshots();
    info->set_tenant(report.tenant);
    info->set_model(report.model);
    info->set_retention(report.retention);
    info->set_label(report.label);
    info->set_rows(report.rows);
    info->set_held_bytes(report.held_bytes);
    const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now - report.made_at);
    info->set_age_ms(static_cast<uint64_t>(std::max<int64_t>(age.count(), 0)));
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::InspectSequence(const Scope& scope,
                                           const v1::InspectSequenceRequest* request,
                                           v1::InspectSequenceResponse* response) {
  if (request->max_rows() > kInspectRowsMax) {
    return ToGrpc(InvalidArgument("max_rows is out of bounds: value={} max={}", request->max_rows(),
                                  kInspectRowsMax));
  }
  const uint32_t max_rows = request->max_rows() == 0 ? kInspectRowsDefault : request->max_rows();
  MutexLock lock(shared_.mutex);
  const absl::StatusOr<core::Inspection> inspection =
      shared_.core.Inspect(scope.all ? nullptr : &scope.tenant, request->sequence_id(),
                           request->layer(), request->first_row(), max_rows);
  if (!inspection.ok()) return ToGrpc(inspection.status());
  const core::SequenceReport& report = inspection->sequence;
  response->set_boot_epoch(boot_epoch_);
  response->set_layers(report.layers);
  response->set_kv_heads(inspection->kv_heads);
  Fill(report, response->mutable_info());
  for (const core::InspectedRow& row : inspection->rows) Fill(row, response->add_rows());
  for (const core::InspectedRow& row : inspection->prompt) Fill(row, response->add_prompt());
  response->set_prompt_rows(inspection->prompt_rows);
  const uint64_t got = std::max(inspection->rows.size(), inspection->prompt.size());
  const uint64_t next = request->first_row() + got;
  if (got > 0 && next < std::max(report.summary.rows_seen, inspection->prompt_rows)) {
    response->set_next_row(next);
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::ListPolicies(const Scope& /*scope*/, const v1::ListPoliciesRequest*,
                                        v1::ListPoliciesResponse* response) {
  response->set_boot_epoch(boot_epoch_);
  for (const PolicyInfo& policy : Policies()) FillPolicy(policy, response->add_policies());
  for (const PolicyInfo& rule : StayRules()) FillPolicy(rule, response->add_rules());
  for (const PolicyInfo& encoding : Encodings()) FillPolicy(encoding, response->add_encodings());
  return grpc::Status::OK;
}

grpc::Status AdminService::GetHost(const Scope& scope, const v1::GetHostRequest*,
                                   v1::GetHostResponse* response) {
  if (!scope.all) {
    return Audited(scope, "get_host", {},
                   [] { return PermissionDenied("GetHost is for administrators (admin.uids)"); });
  }
  const HostMemory memory = ReadHostMemory();
  const StatsSnapshot snapshot = snapshot_();
  response->set_boot_epoch(snapshot.boot_epoch);
  response->set_memlock_limit_bytes(LimitOf(RLIMIT_MEMLOCK));
  response->set_memory_locked(snapshot.memory_locked);
  response->set_memory_lock_mode(host_.memory_lock_mode);
  response->set_memory_total_bytes(memory.total_bytes);
  response->set_memory_available_bytes(memory.available_bytes);
  response->set_cgroup_limit_bytes(memory.cgroup_limit_bytes);
  response->set_huge_pages(host_.huge_pages);
  response->set_numa_node(host_.numa_node);
  response->set_lease_probe(LeaseProbeWorks());
  response->set_uid(::geteuid());
  response->set_open_files_limit(static_cast<uint32_t>(
      std::min<uint64_t>(LimitOf(RLIMIT_NOFILE), std::numeric_limits<uint32_t>::max())));
  return grpc::Status::OK;
}

}  // namespace kvasir
