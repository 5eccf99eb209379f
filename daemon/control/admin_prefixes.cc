// AdminService: what operators ask about cached prefixes.
#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "daemon/control/admin_service.h"
#include "daemon/control/status_convert.h"

namespace kvasir {
namespace {

constexpr int kWatchersMax = 8;  // each takes a thread
// Of one hold of the lock.
constexpr size_t kEventsAtOnce = 256, kKeysAtOnce = 4096;
constexpr std::chrono::milliseconds kWatchInterval{100};

uint64_t MillisecondsOf(Instant::duration duration) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
  return static_cast<uint64_t>(std::max<int64_t>(ms, 0));
}

v1::PrefixEvent::Kind KindOf(core::RemovalCause cause) {
  switch (cause) {
    case core::RemovalCause::kEvicted:
      return v1::PrefixEvent::KIND_EVICTED;
    case core::RemovalCause::kSuperseded:
      return v1::PrefixEvent::KIND_SUPERSEDED;
    case core::RemovalCause::kDegraded:
      return v1::PrefixEvent::KIND_DEGRADED;
    case core::RemovalCause::kNone:
      break;
  }
  return v1::PrefixEvent::KIND_STORED;
}

void Fill(const core::PrefixEvents::Event& event, v1::PrefixEvent* out) {
  out->set_number(event.number);
  out->set_kind(KindOf(event.cause));
  out->set_tenant(event.change.tenant);
  out->set_retention(event.change.retention);
  out->set_entry(event.change.entry);
  out->set_rows(event.change.rows);
  out->set_place(event.change.place);
  out->set_condensed_from(event.change.condensed_from);
  for (const ChainKey& key : event.change.keys) {
    const auto bytes = key.ToBytes();
    out->add_keys(bytes.data(), bytes.size());
  }
}

void Fill(const core::PrefixLookup& lookup, const std::string& tenant, Instant now,
          v1::PrefixLookup* out) {
  out->set_sequence_id(lookup.sequence_id);
  out->set_tenant(tenant);
  out->set_model(lookup.model);
  out->set_retention(lookup.retention);
  out->set_label(lookup.label);
  out->set_rows(lookup.rows);
  out->set_rows_hit(lookup.rows_hit);
  out->set_form(lookup.form);
  out->set_form_condensed_from(lookup.form_condensed_from);
  out->set_is_public(lookup.is_public);
  out->set_cause(core::NameOf(lookup.why.cause));
  out->set_row(lookup.why.row);
  out->set_nearest(lookup.why.nearest);
  out->set_nearest_rows(lookup.why.nearest_rows);
  out->set_evicted_ms_ago(MillisecondsOf(lookup.why.evicted_ago + (now - lookup.at)));
  if (lookup.why.cause != core::MissCause::kEvicted) out->set_evicted_ms_ago(0);
  out->set_age_ms(MillisecondsOf(now - lookup.at));
}

void Fill(const core::DemandReport& report, v1::HitRateCurve* out) {
  out->set_tenant(report.tenant);
  out->set_limit_bytes(report.demand.limit_bytes);
  out->set_chunk_bytes(report.demand.chunk_bytes);
  out->set_chunks_asked(report.demand.chunks_asked);
  out->set_stands_for(report.demand.stands_for);
  out->set_metadata_bytes(report.demand.metadata_bytes);
  for (const core::HitRatePoint& point : report.demand.points) {
    v1::HitRatePoint* const one = out->add_points();
    one->set_times(point.times);
    one->set_bytes(point.bytes);
    one->set_chunks(point.chunks);
    one->set_hit_ratio(point.hit_ratio);
  }
}

}  // namespace

grpc::Status AdminService::ListPrefixes(const Scope& scope, const v1::ListPrefixesRequest* request,
                                        v1::ListPrefixesResponse* response) {
  const Instant now = SystemClock().Now();
  MutexLock lock(shared_.mutex);
  response->set_boot_epoch(boot_epoch_);
  for (const core::PrefixReport& report : shared_.core.PrefixReports()) {
    if (!scope.Sees(report.tenant)) continue;
    if (!request->tenant().empty() && request->tenant() != report.tenant) continue;
    v1::PrefixInfo* const info = response->add_prefixes();
    info->set_tenant(report.tenant);
    info->set_model(report.model);
    info->set_retention(report.retention);
    info->set_label(report.label);
    info->set_rows(report.rows);
    info->set_first_rows(report.first_rows);
    info->set_held_bytes(report.held_bytes);
    info->set_hits(report.hits);
    info->set_entry(report.entry);
    info->set_place(report.place);
    info->set_leases(report.leases);
    info->set_condensed_from(report.condensed_from);
    info->set_age_ms(MillisecondsOf(now - report.made_at));
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::ListPrefixLookups(const Scope& scope,
                                             const v1::ListPrefixLookupsRequest* request,
                                             v1::ListPrefixLookupsResponse* response) {
  const Instant now = SystemClock().Now();
  bool known = request->tenant().empty();
  MutexLock lock(shared_.mutex);
  response->set_boot_epoch(boot_epoch_);
  for (const core::TenantReport& tenant : shared_.core.TenantReports()) {
    if (!scope.Sees(tenant.name)) continue;
    if (!request->tenant().empty() && request->tenant() != tenant.name) continue;
    known = true;
    const auto lookups = shared_.core.PrefixLookups(tenant.name);
    if (!lookups.ok()) continue;
    for (const core::PrefixLookup& one : *lookups) {
      Fill(one, tenant.name, now, response->add_lookups());
    }
  }
  if (!known) return ToGrpc(NotFound("unknown tenant: tenant={}", request->tenant()));
  return grpc::Status::OK;
}

grpc::Status AdminService::GetHitRateCurves(const Scope& scope,
                                            const v1::GetHitRateCurvesRequest* request,
                                            v1::GetHitRateCurvesResponse* response) {
  std::vector<core::DemandReport> reports;
  {
    MutexLock lock(shared_.mutex);
    reports = shared_.core.DemandReports();
  }
  response->set_boot_epoch(boot_epoch_);
  for (const core::DemandReport& report : reports) {
    if (!scope.Sees(report.tenant)) continue;
    if (!request->tenant().empty() && request->tenant() != report.tenant) continue;
    Fill(report, response->add_curves());
  }
  if (!request->tenant().empty() && response->curves().empty()) {
    return ToGrpc(NotFound("unknown tenant: tenant={}", request->tenant()));
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::DropPrefixes(const Scope& scope, const v1::DropPrefixesRequest* request,
                                        v1::DropPrefixesResponse* response) {
  return Audited(scope, "evict", {{"target", request->tenant()}}, [&] {
    if (!scope.all) {
      return PermissionDenied("DropPrefixes is for administrators (admin.uids)");
    }
    MutexLock lock(shared_.mutex);
    const absl::StatusOr<uint64_t> dropped = shared_.core.DropPrefixes(request->tenant());
    if (!dropped.ok()) return dropped.status();
    response->set_boot_epoch(boot_epoch_);
    response->set_dropped(*dropped);
    shared_.tier_work.NotifyAll();  // what is stored is forgotten
    return absl::OkStatus();
  });
}

bool AdminService::TakeEvents(const Scope& scope, const std::string& tenant, uint64_t* number,
                              std::vector<v1::PrefixEvent>* events) {
  MutexLock lock(shared_.mutex);
  const core::PrefixEvents& all = shared_.core.prefix_events();
  if (*number == 0) *number = all.next_number();
  if (*number >= all.next_number()) {
    (void)shared_.progress.WaitUntil(shared_.mutex, SystemClock().Now() + kWatchInterval);
  }
  const uint64_t oldest = all.events().empty() ? all.next_number() : all.events().front().number;
  if (*number < oldest) {
    events->emplace_back().set_kind(v1::PrefixEvent::KIND_LOST);
    events->back().set_number(oldest - 1);
    *number = oldest;
  }
  size_t keys = 0;
  while (*number < all.next_number() && events->size() < kEventsAtOnce && keys < kKeysAtOnce) {
    const core::PrefixEvents::Event& event = all.events()[*number - oldest];
    ++*number;
    keys += event.change.keys.size();
    if (!scope.Sees(event.change.tenant)) continue;
    if (!tenant.empty() && tenant != event.change.tenant) continue;
    Fill(event, &events->emplace_back());
  }
  return !shared_.stopping;
}

grpc::Status AdminService::WatchPrefixes(const Scope& scope, grpc::ServerContext* context,
                                         const v1::WatchPrefixesRequest* request,
                                         grpc::ServerWriter<v1::PrefixEvent>* writer) {
  {
    MutexLock lock(watchers_mutex_);
    if (watchers_[scope.slot] >= kWatchersMax) {
      return ToGrpc(ResourceExhausted("tenant has too many watchers: max={}", kWatchersMax));
    }
    ++watchers_[scope.slot];
  }
  struct Leaving {
    ~Leaving() { leave(); }
    const std::function<void()> leave;
  };
  const Leaving leaving{[&] {
    MutexLock lock(watchers_mutex_);
    --watchers_[scope.slot];
  }};
  uint64_t number = request->from_number();
  for (bool running = true; running && !context->IsCancelled();) {
    std::vector<v1::PrefixEvent> events;
    running = TakeEvents(scope, request->tenant(), &number, &events);
    for (const v1::PrefixEvent& event : events) {
      if (!writer->Write(event)) return grpc::Status::OK;  // nobody reads any more
    }
  }
  return context->IsCancelled() ? grpc::Status::OK : ToGrpc(Unavailable("the daemon is stopping"));
}

}  // namespace kvasir
