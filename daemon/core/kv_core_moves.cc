#include "daemon/core/kv_core_moves.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::core {
namespace {

absl::Status CheckOnDevice(const Snapshot& snapshot, const DeviceMemory& device) {
  const auto refuse = [&](const char* what) {
    return FailedPrecondition(
        "the snapshot's rows have no place in the memory of a device: {}: device={} retention={}",
        what, device.name(), snapshot.retention);
  };
  if (snapshot.encoded) return refuse("they are encoded");
  if (!snapshot.chosen.empty()) return refuse("they were selected by their keys");
  for (const Snapshot::Lane& lane : snapshot.lanes) {
    if (lane.policy->Needs().source != ScoreSource::kNone) return refuse("scores decide");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status KvCore::Moves::Check(const KvCore& core, const Session& session, const Model& model,
                                  const Snapshot& snapshot, bool reads_records) {
  if (snapshot.device == model.device()) {
    return core.CheckAttachable(session, model, snapshot, reads_records);
  }
  KVASIR_RETURN_IF_ERROR(snapshot.CheckModelAnywhere(model));
  if (model.device() != nullptr) {
    if (snapshot.device != nullptr) return snapshot.CheckModel(model);
    KVASIR_RETURN_IF_ERROR(CheckOnDevice(snapshot, *model.device()));
  }
  return core.CheckFits(session, snapshot, reads_records);
}

std::vector<const PrefixCache*> KvCore::Moves::Elsewhere(const Session& session, const Model& model,
                                                         const Tenant& tenant) {
  std::vector<const PrefixCache*> caches;
  if (&tenant != &session.tenant) return caches;
  if (model.device() != nullptr) return {&tenant.prefixes};
  for (const auto& device : tenant.devices) caches.push_back(&device->prefixes);
  return caches;
}

std::optional<PrefixMatchOf> KvCore::Moves::Find(const KvCore& core, const Session& session,
                                                 const Model& model, const PrefixKeys& keys,
                                                 const ChainKey& form, bool reads_records,
                                                 uint64_t rows_above) {
  std::optional<PrefixMatchOf> best;
  const auto fits = [&](const Snapshot& snapshot) {
    return Check(core, session, model, snapshot, reads_records).ok();
  };
  for (const auto& [tenant, chain] : keys.chains) {
    for (const PrefixCache* cache : Elsewhere(session, model, *tenant)) {
      PrefixCache::Hit hit = cache->Match({&chain, keys.tokens, keys.rows_max}, form, fits);
      if (hit.snapshot == nullptr || hit.rows <= (best ? best->hit.rows : rows_above)) continue;
      const QualityClass quality = hit.snapshot->quality;
      best = PrefixMatchOf{tenant, &chain, form, std::move(hit), quality, std::nullopt};
    }
  }
  return best;
}

uint64_t KvCore::Moves::Begin(const Model& model, const PrefixMatchOf& match, bool is_awaited) {
  const PrefixCache::Hit& hit = match.hit;
  std::shared_ptr<const Snapshot> from =
      hit.rows == hit.snapshot->rows ? hit.snapshot : hit.snapshot->Cut(hit.rows);
  PrefixCache& cache = match.tenant->PrefixesIn(from->device);
  const PrefixPin pin = cache.Pin(*from);  // not given up for the room of what it becomes
  const absl::StatusOr<uint64_t> begun = core_.offloads_.BringPrefix(
      *match.tenant, std::move(from), hit.entry, model.device(), is_awaited);
  if (!begun.ok()) return 0;
  (void)cache.Use(*match.chain, match.form, hit);  // so that the policy learns
  core_.tier_hint_ = true;
  return *begun;
}

bool KvCore::Moves::Awaits(const Session& session, const Model& model, const OpenRequest& request,
                           const ChainKey& form, uint64_t rows_there) {
  PrefixLoading& loading = *request.loading;
  if (loading.move == 0) {
    const std::optional<PrefixMatchOf> found =
        Find(core_, session, model, *request.prefix, form, request.reads_records, rows_there);
    if (!found) return false;
    loading.move = Begin(model, *found, /*is_awaited=*/true);
  }
  return core_.offloads_.IsOut(loading.move) && !loading.gave_up;
}

absl::StatusOr<bool> KvCore::Moves::AwaitsSaved(Tenant& tenant, const Model& model,
                                                const SnapshotId& id,
                                                std::shared_ptr<const Snapshot> snapshot,
                                                PrefixLoading* loading) {
  const std::string place = snapshot->place();
  if (loading == nullptr) {
    return Unavailable("the saved sequence lies in other memory: place={}", place);
  }
  if (loading->move == 0) {  // once a call
    KVASIR_ASSIGN_OR_RETURN(
        loading->move, core_.offloads_.BringSaved(tenant, id, std::move(snapshot), model.device()));
    core_.tier_hint_ = true;
  } else if (!core_.offloads_.IsOut(loading->move)) {  // it has ended, and it is not here
    return Unavailable("the saved sequence could not be moved, or has gone again: place={}", place);
  }
  if (loading->gave_up) {
    core_.offloads_.Settle(std::exchange(loading->move, 0));
    return Unavailable("the saved sequence is still on its way: try again: place={}", place);
  }
  return true;
}

std::unique_ptr<OffloadJob> KvCore::TakeOffloadJob(const DeviceMemory& device,
                                                   device::CopyDirection direction) {
  return offloads_.Take(device, direction, tenants_);
}

void KvCore::FinishOffloadJob(std::unique_ptr<OffloadJob> job) {
  offloads_.Finish(std::move(job));
  tier_hint_ = true;  // what lies in host memory now may go on to a tier
}

}  // namespace kvasir::core
