// Saved sequences that go down to a tier, and come up when somebody goes on from them.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/snapshot_state.h"

namespace kvasir::core {

std::optional<size_t> KvCore::TierOfSaved() const {
  for (size_t tier = 0; tier < config_.tiers.size(); ++tier) {
    // What another host may name cannot be dropped for good.
    if (!config_.tiers[tier].shared && !config_.tiers[tier].adopted) return tier;
  }
  return std::nullopt;
}

bool KvCore::AskForStoreOfSaved(size_t tier, Tenant& tenant) {
  if (TierOfSaved() != tier) return false;
  PrefixStore& store = *tenant.stores[tier];
  for (const auto& [id, entry] : tenant.snapshots.entries()) {
    if (entry.stored != nullptr || entry.unstorable || !HasState(*entry.snapshot)) continue;
    TierJob* const job = QueueStore(tier, tenant, entry.snapshot);
    if (job == nullptr) break;
    job->saved = id;
    return true;
  }
  store.saved_wanted = false;
  return false;
}

absl::StatusOr<bool> KvCore::AwaitsSaved(Tenant& tenant, const Model& model, const SnapshotId& id,
                                         const Snapshot& stored, PrefixLoading* loading) {
  if (loading == nullptr) return Unavailable("the saved sequence lies in a tier");
  if (loading->load == 0) {  // once a call
    KVASIR_ASSIGN_OR_RETURN(loading->load, LoadSaved(tenant, model, id, stored));
  } else if (!loads_.contains(loading->load)) {  // it has ended, and it is not here
    return Unavailable("the saved sequence could not be read from its tier, or has gone again");
  }
  if (loading->gave_up) {
    return Unavailable("the saved sequence is still on its way up from its tier: try again");
  }
  return true;
}

absl::StatusOr<uint64_t> KvCore::LoadSaved(Tenant& tenant, const Model& model, const SnapshotId& id,
                                           const Snapshot& stored) {
  const std::optional<size_t> tier = TierOfSaved();
  if (!tier) return Internal("a saved sequence lies in no tier");
  for (const auto& [load, books] : loads_) {
    if (books.tenant == &tenant && books.saved == id) return load;
  }
  PrefixStore& store = *tenant.stores[*tier];
  auto job = std::make_unique<TierJob>();
  absl::StatusOr<std::shared_ptr<const Snapshot>> snapshot =
      MakeLoadableForm(model, tenant, stored, &job->items);
  if (!snapshot.ok()) {
    ++store.counters.load_failures;
    // Under another configuration, a profile that is there again, it may be gone on from.
    if (snapshot.status().code() != absl::StatusCode::kDataLoss) return snapshot.status();
    const absl::Status lost = NotFound("unknown snapshot: {}", MessageOf(snapshot.status()));
    (void)tenant.snapshots.Drop(id);  // it will not be otherwise next time
    return lost;
  }
  job->kind = TierJob::Kind::kLoad;
  job->tier = *tier;
  job->tenant = &tenant;
  job->id = next_tier_job_id_++;
  job->saved = id;
  job->bytes = stored.stored->bytes();
  job->snapshot = *std::move(snapshot);
  const uint64_t load = job->id;
  moving_[load] = job->snapshot;
  loads_[load] = {*tier, &tenant, 0, stored.rows, job->bytes, id};
  tiers_[*tier].reads.push_back(std::move(job));
  tier_hint_ = true;
  return load;
}

void KvCore::FinishLoadOfSaved(TierJob& job) {
  Tenant& tenant = *job.tenant;
  PrefixStore& store = *tenant.stores[job.tier];
  if (job.outcome == ReadOutcome::kHit) {
    ++store.counters.loads;
    store.counters.load_rows += job.snapshot->rows;
    tenant.snapshots.SetLoaded(*job.saved, std::move(job.snapshot));
    return;
  }
  ++store.counters.load_failures;
  if (!IsFailure(job.outcome) && job.outcome != ReadOutcome::kCancelled) {
    (void)tenant.snapshots.Drop(*job.saved);
  }
}

}  // namespace kvasir::core
