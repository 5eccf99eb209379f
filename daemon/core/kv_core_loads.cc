// Prefixes that come up from tiers.
#include <algorithm>
#include <chrono>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/kv_core_moves.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/whole_snapshot.h"

namespace kvasir::core {
namespace {

constexpr double kNewestWeight = 0.3;  // of a measured rate

}  // namespace

std::optional<PrefixMatchOf> KvCore::FindStored(const Session& session, const Model& model,
                                                const OpenRequest& request, const ChainKey& form,
                                                uint64_t rows_above) const {
  const auto fits = [&](const Snapshot& snapshot) {
    return Moves::Check(*this, session, model, snapshot, request.reads_records).ok();
  };
  const PrefixKeys& keys = *request.prefix;
  std::optional<PrefixMatchOf> best;
  for (const auto& [tenant, chain] : keys.chains) {
    if (model.device() != nullptr && tenant != &session.tenant) continue;
    for (size_t tier = 0; tier < tenant->stores.size(); ++tier) {
      const PrefixCache& cache = tenant->stores[tier]->cache();
      for (const ChainKey& other : request.least_quality ? cache.Forms() : std::vector{form}) {
        PrefixCache::Hit hit = cache.Match({&chain, keys.tokens, keys.rows_max}, other, fits);
        if (hit.snapshot == nullptr || hit.rows <= (best ? best->hit.rows : rows_above)) continue;
        const QualityClass quality = hit.snapshot->quality;
        if (other != form && quality < *request.least_quality) continue;
        best = PrefixMatchOf{tenant, &chain, other, std::move(hit), quality, tier};
      }
    }
  }
  return best;
}

bool KvCore::IsWorthLoading(size_t tier, const Model& model, uint64_t bytes, uint64_t rows) const {
  const TierQueue& place = tiers_[tier];
  const double prefill_rate = model.description().prefill_rows_per_s;
  if (prefill_rate <= 0 || place.read_bytes_per_s <= 0) return true;
  uint64_t queued = bytes;
  for (const auto& [id, load] : loads_) queued += load.tier == tier ? load.bytes : 0;
  return static_cast<double>(queued) / place.read_bytes_per_s <
         static_cast<double>(rows) / prefill_rate;
}

bool KvCore::AwaitsLoad(const Session& session, const Model& model, const OpenRequest& request,
                        const ChainKey& form, uint64_t rows_there) {
  if (request.loading == nullptr) return false;
  PrefixLoading& loading = *request.loading;
  if (loading.load == 0 && loading.move == 0 && !tiers_.empty()) {  // once a call
    const std::optional<PrefixMatchOf> elsewhere = Moves::Find(
        *this, session, model, *request.prefix, form, request.reads_records, rows_there);
    const std::optional<PrefixMatchOf> found =
        FindStored(session, model, request, form, elsewhere ? elsewhere->hit.rows : rows_there);
    if (found) loading.load = LoadPrefix(model, *found, request.prefix->tokens, rows_there);
  }
  const auto load = loads_.find(loading.load);
  // What comes up from a tier comes to host memory, and from there to a device.
  if (load == loads_.end()) return Moves(*this).Awaits(session, model, request, form, rows_there);
  if (!loading.gave_up) return true;
  ++load->second.tenant->stores[load->second.tier]->counters.loads_declined;
  return false;
}

absl::Status KvCore::PrefetchPrefix(Session& session, uint32_t model_id, const PrefixKeys& keys) {
  const auto found = session.models.find(model_id);
  if (found == session.models.end()) return NotFound("unknown model: model_id={}", model_id);
  const Model& model = found->second->model;
  for (const PrefixMatchOf& match :
       MatchForms(session, model, keys, /*reads_records=*/true, /*with_tiers=*/true)) {
    if (!match.tier && match.hit.snapshot->device == model.device()) continue;  // there already
    uint64_t rows_there = 0;  // in the form that is looked at
    for (const auto& [tenant, chain] : keys.chains) {
      if (tenant != match.tenant) continue;
      rows_there = tenant->PrefixesIn(model.device())
                       .Match({&chain, keys.tokens, keys.rows_max}, match.form,
                              [](const Snapshot&) { return true; })
                       .rows;
    }
    if (rows_there >= match.hit.rows) break;
    if (match.tier) {
      (void)LoadPrefix(model, match, keys.tokens, rows_there);
    } else {
      (void)Moves(*this).Begin(model, match, /*is_awaited=*/false);
    }
    break;
  }
  return absl::OkStatus();
}

uint64_t KvCore::LoadPrefix(const Model& model, const PrefixMatchOf& match,
                            std::span<const TokenId> tokens, uint64_t rows_there) {
  const size_t tier = *match.tier;
  PrefixStore& store = *match.tenant->stores[tier];
  for (const auto& [id, load] : loads_) {
    if (load.tier == tier && load.tenant == match.tenant && load.entry == match.hit.entry &&
        load.rows >= match.hit.rows) {
      return id;
    }
  }
  if (config_.tiers[tier].adopted) {
    return VerifyPrefix(tier, *match.tenant, store.cache().entries().at(match.hit.entry));
  }
  const std::shared_ptr<const Snapshot> stored = match.hit.rows == match.hit.snapshot->rows
                                                     ? match.hit.snapshot
                                                     : match.hit.snapshot->Cut(match.hit.rows);
  const uint64_t bytes = stored->stored->bytes();
  if (!IsWorthLoading(tier, model, bytes, match.hit.rows - rows_there)) {
    ++store.counters.loads_declined;
    return 0;
  }
  auto job = std::make_unique<TierJob>();
  absl::StatusOr<std::shared_ptr<const Snapshot>> snapshot =
      MakeLoadable(model, *match.tenant, *stored, tokens.first(stored->rows), &job->items);
  if (!snapshot.ok()) {
    ++store.counters.load_failures;
    // It will not be otherwise next time; where there was no room it may be.
    if (snapshot.status().code() == absl::StatusCode::kDataLoss ||
        snapshot.status().code() == absl::StatusCode::kInvalidArgument) {
      store.cache().DropEntry(match.hit.entry);
    }
    return 0;
  }
  job->kind = TierJob::Kind::kLoad;
  job->tier = tier;
  job->tenant = match.tenant;
  job->id = next_tier_job_id_++;
  const uint64_t id = job->id;
  job->entry = match.hit.entry;
  job->bytes = bytes;
  job->snapshot = *std::move(snapshot);
  moving_[id] = job->snapshot;
  loads_[id] = {tier, match.tenant, match.hit.entry, match.hit.rows, bytes, std::nullopt};
  (void)store.cache().Use(*match.chain, match.form, match.hit);  // so that the policy learns
  tiers_[tier].reads.push_back(std::move(job));
  tier_hint_ = true;
  return id;
}

void KvCore::FinishLoad(TierJob& job) {
  Tenant& tenant = *job.tenant;
  PrefixStore& store = *tenant.stores[job.tier];
  loads_.erase(job.id);
  if (job.saved) return FinishLoadOfSaved(job);
  if (job.outcome != ReadOutcome::kHit) {
    ++store.counters.load_failures;
    // Where the place is ill or nobody waits any more, what lies there may be whole.
    if (!IsFailure(job.outcome) && job.outcome != ReadOutcome::kCancelled) {
      store.cache().DropEntry(job.entry);
    }
    return;
  }
  TierQueue& place = tiers_[job.tier];
  const double seconds = std::max(std::chrono::duration<double>(job.took).count(), 1e-9);
  const double rate = static_cast<double>(job.bytes) / seconds;
  place.read_bytes_per_s =
      place.read_bytes_per_s <= 0
          ? rate
          : kNewestWeight * rate + (1 - kNewestWeight) * place.read_bytes_per_s;
  PrefixUse use;
  const uint64_t rows = job.snapshot->rows;
  if (tenant.prefixes.Add(std::move(job.snapshot), use).ok()) {
    ++store.counters.loads;
    store.counters.load_rows += rows;
  } else {
    ++store.counters.load_failures;
  }
}

absl::StatusOr<std::shared_ptr<const Snapshot>> KvCore::MakeLoadable(
    const Model& model, Tenant& tenant, const Snapshot& stored, std::span<const TokenId> tokens,
    std::vector<TierJob::Item>* items) const {
  if (!stored.stored->state.empty()) return MakeLoadableForm(model, tenant, stored, items);
  KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, LanesOf(tenant, model, nullptr, stored));
  std::vector<std::vector<WholeRun>> runs;
  for (const std::vector<StoredRun>& lane : stored.stored->lanes) {
    std::vector<WholeRun>& out = runs.emplace_back();
    for (const StoredRun& run : lane) {
      out.push_back({run.group_slots, run.rows, run.block->bytes()});
    }
  }
  const auto group_of =
      [&](size_t lane, size_t index, uint64_t row,
          const shm::GroupGeometry& geometry) -> absl::StatusOr<std::shared_ptr<KeptGroup>> {
    const StoredRun& run = stored.stored->lanes[lane][index];
    GroupAllocator& allocator = tenant.kept.For(geometry.bytes);
    KVASIR_ASSIGN_OR_RETURN(const Group group, allocator.Allocate());
    auto kept = std::make_shared<KeptGroup>(group, geometry, allocator);
    kept->slots = WholeSlots(row, tokens.subspan(row, run.rows));
    items->push_back({KeptGroupOf(kept, static_cast<uint32_t>(lane), run.rows), {}, run.block});
    return kept;
  };
  return MakeWhole(model, stored, std::move(lanes), tokens, runs, nullptr, group_of);
}

absl::StatusOr<std::shared_ptr<const Snapshot>> KvCore::MakeLoadableForm(
    const Model& model, Tenant& tenant, const Snapshot& stored,
    std::vector<TierJob::Item>* items) const {
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelProfile> profile, ProfileOf(model));
  KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, LanesOf(tenant, model, profile, stored));
  const auto run_of =
      [&](uint32_t lane, size_t index,
          uint64_t plane_bytes) -> absl::StatusOr<std::shared_ptr<const StoredBlock>> {
    const std::vector<StoredRun>& runs = stored.stored->lanes[lane];
    if (index < runs.size() && runs[index].block->bytes() == plane_bytes) return runs[index].block;
    return DataLoss("a stored group is not there, or has another shape: lane={} group={}", lane,
                    index);
  };
  GroupSupply supply;
  supply.kept = [&](WantedGroup wanted) -> absl::StatusOr<std::shared_ptr<KeptGroup>> {
    KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<const StoredBlock> block,
                            run_of(wanted.lane, wanted.index, PlaneBytes(*wanted.geometry)));
    GroupAllocator& allocator = tenant.kept.For(wanted.geometry->bytes);
    KVASIR_ASSIGN_OR_RETURN(const Group group, allocator.Allocate());
    auto kept = std::make_shared<KeptGroup>(group, *wanted.geometry, allocator, wanted.records);
    kept->slots = std::move(wanted.slots);
    items->push_back({KeptGroupOf(kept, wanted.lane, kept->rows()), {}, std::move(block)});
    return kept;
  };
  supply.recent_allocator = [&](uint64_t bytes) -> GroupAllocator& {
    return tenant.outside.For(bytes);
  };
  supply.recent = [&](uint32_t lane, size_t index, uint64_t plane_bytes,
                      BlockList* into) -> absl::StatusOr<std::optional<GroupDigest>> {
    KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<const StoredBlock> block,
                            run_of(lane, index, plane_bytes));
    KVASIR_RETURN_IF_ERROR(into->Add());
    SnapshotGroup at;
    at.recent = into->groups().back();
    at.lane = lane;
    at.plane_bytes = plane_bytes;
    items->push_back({std::move(at), {}, std::move(block)});
    return std::nullopt;
  };
  return RestoreSnapshot(model, stored, std::move(lanes), profile, stored.stored->state, nullptr,
                         supply);
}

}  // namespace kvasir::core
