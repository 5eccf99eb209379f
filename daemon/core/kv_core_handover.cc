// What outlives the process in memory: taken over from the one before, noted down for the next.
#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/whole_snapshot.h"

namespace kvasir::core {
namespace {

constexpr std::chrono::seconds kRestWithoutRoom{1};
// A frozen extent is emptied where at most so many of its groups are left: all of them are moved to
// win the rest.
constexpr double kWorthMoving = 0.5, kWorthMovingWhenShort = 0.9;

}  // namespace

// Builds the snapshots of one adoption: who claims which group of which extent.
class KvCore::Adopter {
 public:
  Adopter(KvCore& core, Adoption& adoption) : core_(core), adoption_(adoption) {}

  // The newer prefix has to be built first: what an older one says of the same group is no longer
  // so. Errors: MakeWhole()'s; kDataLoss naming what does not fit.
  absl::StatusOr<std::shared_ptr<const Snapshot>> Build(Tenant& tenant,
                                                        const StoredPrefix& prefix) {
    KVASIR_ASSIGN_OR_RETURN(const Model model, Model::Create(prefix.facts.model));
    OpenRequest request;
    request.retention = prefix.facts.retention;
    KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, core_.LanesFor(tenant, model, nullptr, request));
    std::vector<std::vector<WholeRun>> runs;
    for (const auto& lane : prefix.lanes) {
      std::vector<WholeRun>& out = runs.emplace_back();
      for (const StoredPrefix::Run& run : lane) {
        out.push_back({run.group_slots, run.rows, run.bytes});
      }
    }
    std::vector<Place> fresh;
    const auto group_of = [&](size_t lane, size_t index, uint64_t row,
                              const shm::GroupGeometry& geometry) {
      const StoredPrefix::Run& run = prefix.lanes[lane][index];
      return GroupOf(tenant, run, row, std::span(prefix.tokens).subspan(row, run.rows), geometry,
                     &fresh);
    };
    ShapesOfLanes& shapes = shapes_[{model.fingerprint(), prefix.facts.retention}];
    absl::StatusOr<std::shared_ptr<const Snapshot>> made =
        MakeWhole(model, prefix.facts, std::move(lanes), prefix.tokens, runs, &shapes, group_of);
    if (!made.ok()) {
      for (const Place& place : fresh) groups_.erase(place);
    }
    return made;
  }

 private:
  using Place = std::pair<uint64_t, uint64_t>;  // extent, offset

  absl::StatusOr<std::shared_ptr<KeptGroup>> GroupOf(Tenant& tenant, const StoredPrefix::Run& run,
                                                     uint64_t row, std::span<const TokenId> tokens,
                                                     const shm::GroupGeometry& geometry,
                                                     std::vector<Place>* fresh) {
    const Place place{run.extent, run.offset};
    if (const auto known = groups_.find(place); known != groups_.end()) {
      KeptGroup& group = *known->second;
      const std::vector<KeptSlot> slots = WholeSlots(row, tokens);
      const size_t both = std::min(slots.size(), group.slots.size());
      const bool same = group.promised == run.digest && &group.geometry() == &geometry &&
                        std::equal(slots.begin(), slots.begin() + static_cast<ptrdiff_t>(both),
                                   group.slots.begin());
      if (!same) return DataLoss("a group is another prefix's now: extent={}", run.extent);
      if (slots.size() > both) group.slots = slots;
      return known->second;
    }
    KVASIR_ASSIGN_OR_RETURN(Extent * extent, ExtentOf(tenant, run, geometry.bytes));
    GroupAllocator& allocator = tenant.kept.For(geometry.bytes);
    KVASIR_ASSIGN_OR_RETURN(const Group group, allocator.Claim(*extent, run.offset));
    auto kept = std::make_shared<KeptGroup>(group, geometry, allocator);
    kept->slots = WholeSlots(row, tokens);
    kept->promised = run.digest;
    groups_[place] = kept;
    fresh->push_back(place);
    return kept;
  }

  absl::StatusOr<Extent*> ExtentOf(Tenant& tenant, const StoredPrefix::Run& run,
                                   uint64_t group_bytes) {
    Owned& owned = owned_[run.extent];  // nobody's where it does not fit
    if (owned.extent == nullptr) {
      const auto offered = adoption_.extents.find(run.extent);
      if (offered == adoption_.extents.end() || offered->second->bytes() != run.extent_bytes) {
        return DataLoss("an extent is not there: id={} bytes={}", run.extent, run.extent_bytes);
      }
      if (run.extent_bytes % group_bytes != 0) {
        return DataLoss("an extent is not of whole groups: id={} bytes={} group_bytes={}",
                        run.extent, run.extent_bytes, group_bytes);
      }
      owned = {&tenant, offered->second.get(), group_bytes};
      tenant.account.Adopt(*owned.extent);
      const absl::Status adopted = tenant.kept.For(group_bytes).Adopt(std::move(offered->second));
      adoption_.extents.erase(offered);
      if (!adopted.ok()) owned = {};
      KVASIR_RETURN_IF_ERROR(adopted);
    }
    if (owned.tenant != &tenant || owned.group_bytes != group_bytes) {
      return DataLoss("an extent is of others: id={} group_bytes={}", run.extent, group_bytes);
    }
    return owned.extent;
  }

  struct Owned {
    Tenant* tenant = nullptr;
    Extent* extent = nullptr;  // owned by an allocator of the tenant's
    uint64_t group_bytes = 0;
  };

  KvCore& core_;
  Adoption& adoption_;
  std::map<Place, std::shared_ptr<KeptGroup>> groups_;  // shared with the snapshots
  std::map<uint64_t, Owned> owned_;
  std::map<std::pair<std::array<uint8_t, 16>, std::string>, ShapesOfLanes> shapes_;
};

AdoptionCounts KvCore::Adopt(Adoption adoption) {
  AdoptionCounts counts;
  struct Made {
    Tenant* tenant;
    std::shared_ptr<const Snapshot> snapshot;
    uint64_t record;
  };
  std::vector<Made> adopted;  // the newest first
  {
    Adopter adopter(*this, adoption);
    for (auto one = adoption.prefixes.rbegin(); one != adoption.prefixes.rend(); ++one) {
      const auto owner = std::find_if(tenants_.begin(), tenants_.end(), [&](const auto& tenant) {
        return tenant->key == one->tenant;
      });
      absl::StatusOr<std::shared_ptr<const Snapshot>> made =
          NotFound("no tenant has this prefix any more");
      if (owner != tenants_.end()) made = adopter.Build(**owner, one->prefix);
      if (made.ok()) {
        adopted.push_back({owner->get(), *std::move(made), one->record});
      } else {
        ++counts.dropped;
        tenants_.front()->notes.Orphan(one->record);
        spdlog::info("a prefix of the process before is dropped: {}", MessageOf(made.status()));
      }
    }
  }
  for (auto one = adopted.rbegin(); one != adopted.rend(); ++one) {
    Tenant& tenant = *one->tenant;
    PrefixCache& cache = tenant.adopted->cache();
    PrefixUse use;
    const absl::StatusOr<bool> added = cache.Add(std::move(one->snapshot), use);
    if (added.ok() && *added) {
      ++counts.prefixes;
      tenant.adopted_records[cache.entries().rbegin()->first] = one->record;
    } else {
      ++counts.dropped;
      tenant.notes.Orphan(one->record);
    }
  }
  adopted.clear();
  for (const auto& tenant : tenants_) {
    tenant->kept.EndAdoption();
    counts.bytes += tenant->kept.frozen_bytes();
  }
  for (auto& [id, extent] : adoption.extents) pool_.Return(std::move(extent));  // nobody names them
  (void)Settle();
  return counts;
}

uint64_t KvCore::VerifyPrefix(size_t tier, Tenant& tenant, const PrefixCache::Entry& entry) {
  auto job = std::make_unique<HandoverJob>();
  job->kind = HandoverJob::Kind::kVerify;
  job->tenant = &tenant;
  job->id = next_tier_job_id_++;
  job->entry = entry.id;
  job->snapshot = entry.snapshot;
  uint64_t bytes = 0;
  for (const LaneTable& lane : entry.snapshot->table.lanes) {
    for (const KeptRun& run : lane.kept.runs()) {
      if (!run.group->promised) continue;
      HandoverJob::Item item;
      item.group = run.group;
      item.digest = *run.group->promised;
      job->items.push_back(std::move(item));
      bytes += PlaneBytes(run.group->geometry());
    }
  }
  const uint64_t id = job->id;
  loads_[id] = {tier, &tenant, entry.id, entry.snapshot->rows, bytes};
  verifications_.push_back(std::move(job));
  tier_hint_ = true;
  return id;
}

std::unique_ptr<HandoverJob> KvCore::TakeVerification() {
  if (verifications_.empty()) {
    for (const auto& tenant : tenants_) {
      if (tenant->adopted == nullptr || tenant->adopted->cache().entries().empty()) continue;
      // One at a time, so that what is asked for does not wait behind all of them.
      const PrefixCache::Entry& entry = tenant->adopted->cache().entries().begin()->second;
      const bool under_way = std::any_of(loads_.begin(), loads_.end(), [&](const auto& load) {
        return load.second.tenant == tenant.get() && load.second.entry == entry.id &&
               config_.tiers[load.second.tier].adopted;
      });
      if (under_way) continue;
      (void)VerifyPrefix(config_.tiers.size() - 1, *tenant, entry);
      break;
    }
  }
  if (verifications_.empty()) return nullptr;
  std::unique_ptr<HandoverJob> job = std::move(verifications_.front());
  verifications_.pop_front();
  return job;
}

void KvCore::OrphanAdopted(Tenant& tenant) {
  if (tenant.adopted == nullptr) return;
  std::erase_if(tenant.adopted_records, [&](const auto& record) {
    if (tenant.adopted->cache().entries().contains(record.first)) return false;
    tenant.notes.Orphan(record.second);
    return true;
  });
}

std::unique_ptr<HandoverJob> KvCore::TakeNote() {
  for (size_t i = 0; i < tenants_.size(); ++i) {  // in turn, a prefix each
    Tenant& tenant = *tenants_[note_turn_++ % tenants_.size()];
    OrphanAdopted(tenant);
    std::optional<HandoverNotes::Step> step = tenant.notes.Next(tenant.prefixes);
    if (!step) continue;
    auto job = std::make_unique<HandoverJob>();
    job->tenant = &tenant;
    job->record = step->record;
    if (step->snapshot == nullptr) {
      job->kind = HandoverJob::Kind::kForget;
      return job;
    }
    job->kind = HandoverJob::Kind::kNote;
    job->entry = step->entry;
    // Found at borders alone, it needs no rows behind the last one.
    const uint64_t rows = RoundDown(step->snapshot->rows, kChunkTokens);
    job->snapshot =
        rows == step->snapshot->rows ? std::move(step->snapshot) : step->snapshot->Cut(rows);
    job->tokens = TokensOf(*job->snapshot);
    for (uint32_t lane = 0; lane < job->snapshot->lanes.size(); ++lane) {
      for (const KeptRun& run : job->snapshot->table.lanes[lane].kept.runs()) {
        HandoverJob::Item item;
        item.group = run.group;
        item.lane = lane;
        item.rows = run.rows;
        item.digested = run.group->digest.has_value();
        if (item.digested) item.digest = *run.group->digest;
        job->items.push_back(std::move(item));
      }
    }
    return job;
  }
  return nullptr;
}

std::unique_ptr<HandoverJob> KvCore::TakeRehoming() {
  const HostPoolCounts pool = pool_.counts();
  const bool pool_is_short = pool.ready_bytes + pool.idle_bytes < 2 * config_.extent_bytes;
  for (const auto& tenant : tenants_) {
    if (tenant->adopted == nullptr || !tenant->adopted->cache().entries().empty() ||
        now_ < tenant->rehome_rest_until) {
      continue;
    }
    const uint64_t high = tenant->config.limit_bytes / 100 * config_.write_down_high_percent;
    const bool is_short = pool_is_short || tenant->account.charged_bytes() >= high;
    for (const auto& [bytes, allocator] : tenant->kept.by_bytes()) {
      for (const GroupAllocator::Frozen& frozen : allocator->FrozenExtents()) {
        if (frozen.share > (is_short ? kWorthMovingWhenShort : kWorthMoving)) break;
        if (auto job = RehomeOf(*tenant, *frozen.extent, *allocator)) return job;
        if (now_ < tenant->rehome_rest_until) return nullptr;
      }
    }
  }
  return nullptr;
}

std::unique_ptr<HandoverJob> KvCore::RehomeOf(Tenant& tenant, const Extent& extent,
                                              GroupAllocator& allocator) {
  std::map<const KeptGroup*, std::shared_ptr<KeptGroup>> groups;
  for (const auto& [id, entry] : tenant.prefixes.entries()) {
    for (const LaneTable& lane : entry.snapshot->table.lanes) {
      for (const KeptRun& run : lane.kept.runs()) {
        if (run.group->group().extent == &extent) groups[run.group.get()] = run.group;
      }
    }
  }
  if (groups.empty()) return nullptr;  // sequences alone have some, and they end
  auto job = std::make_unique<HandoverJob>();
  job->kind = HandoverJob::Kind::kRehome;
  job->tenant = &tenant;
  for (auto& [raw, group] : groups) {
    const absl::StatusOr<Group> fresh = allocator.AllocateWithoutMakingRoom();
    if (!fresh.ok()) break;
    HandoverJob::Item item;
    item.copy = std::make_shared<KeptGroup>(*fresh, group->geometry(), allocator);
    item.copy->slots = group->slots;
    item.copy->digest = group->digest;
    item.group = std::move(group);
    job->items.push_back(std::move(item));
  }
  if (!job->items.empty()) return job;
  tenant.rehome_rest_until = now_ + kRestWithoutRoom;
  return nullptr;
}

std::unique_ptr<HandoverJob> KvCore::TakeHandoverJob() {
  std::unique_ptr<HandoverJob> job = TakeVerification();
  if (job == nullptr) job = TakeNote();
  if (job == nullptr) job = TakeRehoming();
  if (job == nullptr) return job;
  for (const HandoverJob::Item& item : job->items) {
    handing_over_.push_back(item.group);
    if (item.copy != nullptr) handing_over_.push_back(item.copy);
  }
  return job;
}

void KvCore::FinishHandoverJob(std::unique_ptr<HandoverJob> job) {
  handing_over_.clear();
  switch (job->kind) {
    case HandoverJob::Kind::kVerify:
      FinishVerification(*job);
      break;
    case HandoverJob::Kind::kNote:
      for (const HandoverJob::Item& item : job->items) {
        if (job->status.ok()) item.group->digest = item.digest;
      }
      job->tenant->notes.Noted(job->entry, job->status.ok() ? job->record : 0);
      break;
    case HandoverJob::Kind::kForget:
      break;
    case HandoverJob::Kind::kRehome:
      FinishRehoming(*job);
      break;
  }
}

void KvCore::FinishVerification(HandoverJob& job) {
  Tenant& tenant = *job.tenant;
  loads_.erase(job.id);
  PrefixCache& adopted = tenant.adopted->cache();
  if (!job.status.ok()) {
    adopted.DropEntry(job.entry);
    return;
  }
  for (const HandoverJob::Item& item : job.items) {
    item.group->digest = item.digest;
    item.group->promised.reset();
  }
  PrefixUse use;
  // In the cache of the memory before it leaves the other: somebody may be looking for it.
  const absl::StatusOr<bool> added = tenant.prefixes.Add(job.snapshot, use);
  const auto record = tenant.adopted_records.find(job.entry);
  if (added.ok() && *added && record != tenant.adopted_records.end()) {
    tenant.notes.Inherit(tenant.prefixes.entries().rbegin()->first, job.snapshot, record->second);
    tenant.adopted_records.erase(record);
  }
  adopted.DropEntry(job.entry, added.ok() ? RemovalCause::kSuperseded : RemovalCause::kEvicted);
}

void KvCore::FinishRehoming(HandoverJob& job) {
  std::map<const KeptGroup*, std::shared_ptr<KeptGroup>> copies;
  for (HandoverJob::Item& item : job.items) copies[item.group.get()] = std::move(item.copy);
  PrefixCache& cache = job.tenant->prefixes;
  std::vector<uint64_t> touched;
  for (const auto& [id, entry] : cache.entries()) {
    for (const LaneTable& lane : entry.snapshot->table.lanes) {
      const auto& runs = lane.kept.runs();
      if (std::any_of(runs.begin(), runs.end(),
                      [&](const KeptRun& run) { return copies.contains(run.group.get()); })) {
        touched.push_back(id);
        break;
      }
    }
  }
  for (const uint64_t id : touched) {
    if (!job.status.ok()) {
      cache.DropEntry(id);
      continue;
    }
    cache.Rehome(id, cache.entries().at(id).snapshot->WithGroups(copies));
  }
  tier_hint_ = true;  // to be noted down anew
}

}  // namespace kvasir::core
