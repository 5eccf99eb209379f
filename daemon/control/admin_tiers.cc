// AdminService: what operators ask of tiers.
#include <algorithm>
#include <chrono>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "daemon/control/admin_service.h"
#include "daemon/control/deadline.h"
#include "daemon/control/status_convert.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

constexpr std::chrono::hours kDrainWaitMax{1};

// `all`: of all tenants together as well.
void Fill(const TierPlace& place, bool all, v1::TierInfo* out) {
  out->set_tier(place.config.name);
  out->set_left_out(place.IsLeftOut());
  if (!all) return;
  const TierStats stats = place.tier->Stats();
  out->set_capacity_bytes(stats.capacity_bytes.value_or(0));
  out->set_held_bytes(stats.held_bytes.value_or(0));
  out->set_written_bytes(stats.written_bytes);
  out->set_read_bytes(stats.read_bytes);
  out->set_write_errors(stats.write_errors);
  for (size_t i = 0; i < kReadOutcomes; ++i) {
    if (stats.reads[i] == 0) continue;
    (*out->mutable_reads())[std::string(NameOf(static_cast<ReadOutcome>(i)))] = stats.reads[i];
  }
}

void Fill(const core::TierReport& report, v1::TierTenant* out) {
  out->set_tenant(report.tenant);
  out->set_prefixes(report.prefixes);
  out->set_stored_bytes(report.stored_bytes);
  out->set_limit_bytes(report.limit_bytes);
  out->set_stores(report.counters.stores);
  out->set_store_failures(report.counters.store_failures);
  out->set_loads(report.counters.loads);
  out->set_load_rows(report.counters.load_rows);
  out->set_load_failures(report.counters.load_failures);
  out->set_loads_declined(report.counters.loads_declined);
}

}  // namespace

grpc::Status AdminService::ListTiers(const Scope& scope, const v1::ListTiersRequest*,
                                     v1::ListTiersResponse* response) {
  std::vector<core::TierReport> reports;
  {
    MutexLock lock(shared_.mutex);
    reports = shared_.core.TierReports();
  }
  response->set_boot_epoch(boot_epoch_);
  for (const TierPlace& place : tiers_) {
    v1::TierInfo* const info = response->add_tiers();
    Fill(place, scope.all, info);
    for (const core::TierReport& report : reports) {
      if (report.tier != place.config.name || !scope.Sees(report.tenant)) continue;
      Fill(report, info->add_tenants());
    }
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::DrainPrefixes(const Scope& scope, grpc::ServerContext* context,
                                         const v1::DrainPrefixesRequest* request,
                                         v1::DrainPrefixesResponse* response) {
  return Audited(scope, "drain", {{"target", request->tenant()}}, [&] {
    if (!scope.all) {
      return PermissionDenied("DrainPrefixes is for administrators (admin.uids)");
    }
    return Drain(*context, *request, response);
  });
}

absl::Status AdminService::Drain(const grpc::ServerContext& context,
                                 const v1::DrainPrefixesRequest& request,
                                 v1::DrainPrefixesResponse* response) {
  core::DrainState state;
  {
    MutexLock lock(shared_.mutex);
    if (const absl::Status started = shared_.core.StartDrain(request.tenant()); !started.ok()) {
      return started;
    }
    shared_.tier_work.NotifyAll();
    const Instant deadline = WaitDeadline(context, kDrainWaitMax);
    for (;;) {
      state = shared_.core.DrainStateOf(request.tenant());
      if (state.pending == 0) break;
      if (shared_.stopping) return Unavailable("the daemon is stopping");
      if (context.IsCancelled()) return absl::CancelledError("the caller has gone");
      if (SystemClock().Now() >= deadline) {
        return DeadlineExceeded("the deadline passed while prefixes are written: left={}",
                                state.pending);
      }
      (void)shared_.progress.WaitUntil(
          shared_.mutex, std::min(deadline, SystemClock().Now() + std::chrono::seconds(1)));
    }
  }
  for (const TierPlace& place : tiers_) {
    if (const absl::Status flushed = place.tier->Flush(); !flushed.ok()) {
      return MakeError(
          flushed.code(),
          fmt::format("what was written is not safe: tier={} stored={} not_stored={} reason={}",
                      place.config.name, state.stored, state.not_stored, MessageOf(flushed)));
    }
  }
  response->set_boot_epoch(boot_epoch_);
  response->set_stored(state.stored);
  response->set_not_stored(state.not_stored);
  response->set_memory_only(state.memory_only);
  return absl::OkStatus();
}

}  // namespace kvasir
