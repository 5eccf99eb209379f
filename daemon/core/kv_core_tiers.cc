// Prefixes that go down to tiers, and what lies there.
#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/whole_snapshot.h"
#include "policies/fairness/fair_shares.h"

namespace kvasir::core {
namespace {

constexpr size_t kKeysAtOnce = 1024;
constexpr std::chrono::seconds kRestAfterFailure{5};

}  // namespace

uint64_t KvCore::StoredBytes(size_t tier) const {
  uint64_t bytes = 0;
  for (const auto& tenant : tenants_) bytes += tenant->stores[tier]->books().bytes();
  return bytes;
}

bool KvCore::MakeTierRoom(size_t tier, const Tenant& asking, uint64_t bytes) {
  const uint64_t capacity = tiers_[tier].capacity_bytes;
  if (capacity == 0) return true;
  if (bytes > capacity) return false;
  uint64_t stored = StoredBytes(tier);
  while (stored + bytes > capacity) {
    std::vector<fairness::Claim> claims;
    for (const auto& tenant : tenants_) {
      const Budget& budget = tenant->account.budget();
      const uint64_t has = tenant->stores[tier]->books().bytes();
      claims.push_back({budget.disk_reserved_bytes, budget.disk_bytes, budget.weight,
                        has + (tenant.get() == &asking ? bytes : 0)});
    }
    const std::vector<uint64_t> shares = fairness::FairShares(capacity, claims);
    // Who has most above its share makes room, as far as something of it may go.
    std::vector<std::pair<uint64_t, PrefixStore*>> above;
    for (size_t i = 0; i < tenants_.size(); ++i) {
      if (claims[i].wanted > shares[i]) {
        above.emplace_back(claims[i].wanted - shares[i], tenants_[i]->stores[tier].get());
      }
    }
    std::stable_sort(above.begin(), above.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    const bool made = std::any_of(above.begin(), above.end(), [&](const auto& one) {
      auto& [too_many, store] = one;
      const uint64_t before = store->books().bytes();
      bool some = false;
      while (stored + bytes > capacity && before - store->books().bytes() < too_many &&
             store->cache().MakeRoom()) {
        some = true;
        stored = StoredBytes(tier);
      }
      return some;
    });
    if (!made) return false;
  }
  return true;
}

TierJob* KvCore::QueueStore(size_t tier, Tenant& tenant, std::shared_ptr<const Snapshot> snapshot) {
  PrefixStore& store = *tenant.stores[tier];
  auto job = std::make_unique<TierJob>();
  job->kind = TierJob::Kind::kStore;
  job->tier = tier;
  job->tenant = &tenant;
  job->snapshot = std::move(snapshot);
  for (SnapshotGroup& group : GroupsOf(*job->snapshot)) {
    job->bytes += group.plane_bytes;
    job->items.emplace_back().at = std::move(group);
  }
  // What is saved is not evicted for it: then no prefix is, either.
  const bool fits = tenant.snapshots.stored_bytes() + job->bytes <= store.limit_bytes();
  if (!fits || !store.MakeRoom(job->bytes) || !MakeTierRoom(tier, tenant, job->bytes)) {
    ++store.counters.store_failures;
    store.rest_until = now_ + kRestAfterFailure;
    return nullptr;
  }
  job->id = next_tier_job_id_++;
  moving_[job->id] = job->snapshot;
  ++store.out;
  tiers_[tier].writes.push_back(std::move(job));
  return tiers_[tier].writes.back().get();
}

void KvCore::AskForStore(size_t tier, Tenant& tenant, const PrefixCache::Entry& entry) {
  TierJob* const job = QueueStore(tier, tenant, WrittenOf(entry.snapshot));
  if (job != nullptr && IsWhole(*job->snapshot)) job->tokens = TokensOf(*job->snapshot);
}

// Between the two watermarks of its memory a tenant goes on with what it was at.
bool KvCore::UpdatePressed(Tenant& tenant) {
  const auto percent = [&](uint32_t of) { return tenant.config.limit_bytes / 100 * of; };
  const uint64_t kept = tenant.kept_bytes();
  if (kept >= percent(config_.write_down_high_percent)) tenant.pressed = true;
  if (kept < percent(config_.write_down_low_percent)) tenant.pressed = false;
  return tenant.pressed;
}

bool KvCore::AskForStoreOf(size_t tier, Tenant& tenant) {
  PrefixStore& store = *tenant.stores[tier];
  const auto& entries = tenant.prefixes.entries();
  while (!store.wanted.empty()) {
    const auto entry = entries.find(store.wanted.front());
    store.wanted.pop_front();
    if (entry == entries.end() || store.Has(*entry->second.snapshot)) continue;
    AskForStore(tier, tenant, entry->second);
    if (!tiers_[tier].writes.empty()) return true;
  }
  if (store.saved_wanted && AskForStoreOfSaved(tier, tenant)) return true;
  if (!UpdatePressed(tenant) || now_ < store.rest_until) return false;
  for (const auto& [id, entry] : entries) {
    // What was used once and never again is the most of what there is, and not worth a write.
    if (entry.hits == 0 || !CanBeStored(*entry.snapshot)) continue;
    if (store.Has(*entry.snapshot)) continue;
    AskForStore(tier, tenant, entry);
    return !tiers_[tier].writes.empty();
  }
  return AskForStoreOfSaved(tier, tenant);
}

std::unique_ptr<TierJob> KvCore::TakeTierJob(size_t tier, TierLane lane) {
  TierQueue& place = tiers_[tier];
  std::deque<std::unique_ptr<TierJob>>& queue =
      lane == TierLane::kReads ? place.reads : place.writes;
  const auto take = [&queue] {
    std::unique_ptr<TierJob> job = std::move(queue.front());
    queue.pop_front();
    return job;
  };
  if (lane == TierLane::kReads) return queue.empty() ? nullptr : take();
  // What is forgotten goes first: what is to be written may need its room.
  for (const auto& tenant : tenants_) {
    std::vector<TierKey> keys = tenant->stores[tier]->books().TakeForgotten(kKeysAtOnce);
    if (keys.empty() || config_.tiers[tier].shared) continue;  // others may still name them
    auto job = std::make_unique<TierJob>();
    job->tier = tier;
    job->tenant = tenant.get();
    job->keys = std::move(keys);
    return job;
  }
  if (!queue.empty()) return take();
  for (size_t i = 0; i < tenants_.size(); ++i) {  // in turn, a prefix each
    Tenant& tenant = *tenants_[place.turn++ % tenants_.size()];
    if (AskForStoreOf(tier, tenant)) return take();
  }
  if (tier == 0) DropBelowLowWatermark();
  return nullptr;
}

bool KvCore::WritesFirst(const Tenant& tenant) const {
  return std::any_of(tenant.stores.begin(), tenant.stores.end(), [&](const auto& store) {
    if (store.get() == tenant.adopted) return false;
    if (store->out > 0) return true;
    const auto& entries = tenant.prefixes.entries();
    return now_ >= store->rest_until &&
           std::any_of(entries.begin(), entries.end(), [&](const auto& one) {
             const Snapshot& snapshot = *one.second.snapshot;
             return one.second.hits > 0 && CanBeStored(snapshot) && !store->Has(snapshot);
           });
  });
}

// Everything that is worth a write is written: what is worth least goes before somebody waits for
// its memory.
void KvCore::DropBelowLowWatermark() {
  for (const auto& tenant : tenants_) {
    if (!tenant->config.degrade.empty()) {
      Degrade(*tenant);
      continue;
    }
    while (UpdatePressed(*tenant) && tenant->GivesUpPrefix()) {
    }
  }
}

void KvCore::FinishTierJob(std::unique_ptr<TierJob> job) {
  moving_.erase(job->id);
  switch (job->kind) {
    case TierJob::Kind::kLoad:
      FinishLoad(*job);
      break;
    case TierJob::Kind::kStore:
      FinishStore(*job);
      break;
    case TierJob::Kind::kErase:
      break;  // what could not be forgotten is found without an owner at the next start
  }
}

void KvCore::FinishStore(TierJob& job) {
  Tenant& tenant = *job.tenant;
  PrefixStore& store = *tenant.stores[job.tier];
  --store.out;
  if (!job.status.ok()) {
    ++store.counters.store_failures;
    store.rest_until = now_ + kRestAfterFailure;
    if (job.has_no_state) {
      if (job.saved) tenant.snapshots.SetUnstorable(*job.saved);
      return;
    }
    store.saved_wanted = false;
    if (job.status.code() == absl::StatusCode::kResourceExhausted) {
      (void)store.cache().MakeRoom();  // the place has less room than was said
    }
    return;
  }
  const Snapshot& snapshot = *job.snapshot;
  StoredPrefix stored;
  static_cast<SnapshotFacts&>(stored.facts) = snapshot;
  stored.manifest_digest = job.manifest_digest;
  stored.manifest_bytes = job.manifest_bytes;
  stored.lanes.resize(snapshot.lanes.size());
  stored.state = std::move(job.state);
  stored.saved = job.saved;
  for (const TierJob::Item& item : job.items) {
    stored.lanes[item.at.lane].push_back(
        {item.digest, item.at.slots, item.at.rows, item.at.plane_bytes});
  }
  // Dropped meanwhile, it is named and forgotten, so that its groups are erased.
  const absl::Status added = AddStored(job.tier, tenant, std::move(stored), /*found_there=*/false);
  if (added.ok()) {
    ++store.counters.stores;
  } else {
    ++store.counters.store_failures;
  }
}

absl::Status KvCore::AddStored(size_t tier, Tenant& tenant, StoredPrefix prefix, bool found_there) {
  PrefixStore& store = *tenant.stores[tier];
  auto rows = std::make_shared<StoredRows>();
  for (const std::vector<StoredPrefix::Run>& lane : prefix.lanes) {
    std::vector<StoredRun>& runs = rows->lanes.emplace_back();
    for (const StoredPrefix::Run& run : lane) {
      const TierKey key = MakeTierKey(tenant.key, run.digest, kGroupPart);
      runs.push_back({store.books().Name(key, run.bytes), run.group_slots, run.rows});
    }
  }
  rows->manifest = store.books().Name(
      MakeTierKey(tenant.key, prefix.manifest_digest, kManifestPart), prefix.manifest_bytes);
  auto snapshot = std::make_shared<Snapshot>();
  static_cast<SnapshotFacts&>(*snapshot) = std::move(prefix.facts);
  rows->state = std::move(prefix.state);
  if (!prefix.saved) snapshot->first_rows = rows->state.empty() ? 0 : snapshot->rows;
  snapshot->tokens.clear();
  snapshot->prompt.clear();  // the state has them
  snapshot->chosen.clear();
  snapshot->tokens_base = snapshot->rows;
  snapshot->next.reset();
  snapshot->table = {};
  snapshot->stored = std::move(rows);
  if (prefix.saved) {
    if (TierOfSaved() != tier) return DataLoss("no saved sequence belongs in this tier");
    tenant.snapshots.SetStored(*prefix.saved, std::move(snapshot), now_, found_there);
    return absl::OkStatus();
  }
  PrefixUse use;
  KVASIR_RETURN_IF_ERROR(store.cache().Add(std::move(snapshot), use).status());
  // Its manifest came on top of what room was made for.
  (void)store.MakeRoom(0);
  (void)MakeTierRoom(tier, tenant, 0);
  return absl::OkStatus();
}

bool KvCore::NamesStored(size_t tier, const TierKey& key) const {
  return std::any_of(tenants_.begin(), tenants_.end(),
                     [&](const auto& tenant) { return tenant->stores[tier]->books().Has(key); });
}

Tenant* KvCore::TenantOfKey(const TierKey& key) const {
  for (const auto& tenant : tenants_) {
    if (IsOfTenant(key, tenant->key)) return tenant.get();
  }
  return nullptr;
}

absl::Status KvCore::StartDrain(const std::string& name) {
  if (tiers_.empty() || config_.tiers.front().adopted) {
    return FailedPrecondition("there is no tier to write to: tier.disk_path=\"\"");
  }
  bool known = name.empty();
  for (const auto& tenant : tenants_) {
    if (!name.empty() && tenant->config.name != name) continue;
    known = true;
    for (const auto& store : tenant->stores) {
      if (store.get() == tenant->adopted) continue;
      store->wanted.clear();
      store->saved_wanted = true;
      for (const auto& [id, entry] : tenant->prefixes.entries()) {
        if (CanBeStored(*entry.snapshot)) store->wanted.push_back(id);
      }
    }
  }
  if (!known) return NotFound("unknown tenant: tenant={}", name);
  return absl::OkStatus();
}

DrainState KvCore::DrainStateOf(const std::string& name) const {
  DrainState state;
  for (const auto& tenant : tenants_) {
    if (!name.empty() && tenant->config.name != name) continue;
    for (const auto& [id, entry] : tenant->prefixes.entries()) {
      const Snapshot& snapshot = *entry.snapshot;
      if (!CanBeStored(snapshot)) {
        ++state.memory_only;
        continue;
      }
      const bool everywhere =
          std::all_of(tenant->stores.begin(), tenant->stores.end(), [&](const auto& store) {
            return store.get() == tenant->adopted || store->Has(snapshot);
          });
      ++(everywhere ? state.stored : state.not_stored);
    }
    for (const auto& store : tenant->stores) {
      state.pending += store->wanted.size() + store->out;
      if (store.get() != tenant->adopted && store->books().has_forgotten()) ++state.pending;
    }
    for (const auto& device : tenant->devices) {
      state.memory_only += device->prefixes.entries().size();
    }
    const std::optional<size_t> tier = TierOfSaved();
    for (const auto& [id, entry] : tenant->snapshots.entries()) {
      const bool can_be =
          tier && !entry.unstorable && (entry.stored != nullptr || HasState(*entry.snapshot));
      ++(!can_be ? state.memory_only : entry.stored != nullptr ? state.stored : state.not_stored);
      if (can_be && entry.stored == nullptr && tenant->stores[*tier]->saved_wanted) ++state.pending;
    }
  }
  return state;
}

std::vector<TierReport> KvCore::TierReports() const {
  std::vector<TierReport> reports;
  for (size_t tier = 0; tier < tiers_.size(); ++tier) {
    if (config_.tiers[tier].adopted) continue;
    for (const auto& tenant : tenants_) {
      const PrefixStore& store = *tenant->stores[tier];
      reports.push_back({config_.tiers[tier].name, tenant->config.name,
                         store.cache().entries().size(), store.books().bytes(), store.limit_bytes(),
                         store.counters});
    }
  }
  return reports;
}

}  // namespace kvasir::core
