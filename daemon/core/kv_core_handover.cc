// What outlives the process in memory: noted down for the next one; what was taken over is
// verified, and moved out of frozen extents.
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
#include "daemon/core/snapshot_state.h"
#include "daemon/core/whole_snapshot.h"

namespace kvasir::core {
namespace {

// Where `moving_` has the snapshot of the job that is out; no tier job has this id.
constexpr uint64_t kHandoverJobOut = ~uint64_t{0};
constexpr std::chrono::seconds kRestWithoutRoom{1};
// A frozen extent is emptied where at most so many of its groups are left: all of them are moved to
// win the rest.
constexpr double kWorthMoving = 0.5, kWorthMovingWhenShort = 0.9;

// Records of adopted prefixes that are no longer there are to be struck out.
void OrphanAdopted(Tenant& tenant) {
  if (tenant.adopted == nullptr) return;
  std::erase_if(tenant.adopted_records, [&](const auto& record) {
    if (tenant.adopted->cache().entries().contains(record.first)) return false;
    tenant.notes.Orphan(record.second);
    return true;
  });
}

}  // namespace

uint64_t KvCore::VerifyPrefix(size_t tier, Tenant& tenant, const PrefixCache::Entry& entry) {
  auto job = std::make_unique<HandoverJob>();
  job->kind = HandoverJob::Kind::kVerify;
  job->tenant = &tenant;
  job->id = next_tier_job_id_++;
  job->entry = entry.id;
  job->snapshot = entry.snapshot;
  uint64_t bytes = 0;
  for (SnapshotGroup& group : KeptGroupsOf(*entry.snapshot)) {
    if (!group.kept->promised) continue;
    HandoverJob::Item& item = job->items.emplace_back();
    item.digest = *group.kept->promised;
    bytes += group.plane_bytes;
    item.at = std::move(group);
  }
  for (uint32_t lane = 0; lane < entry.snapshot->lanes.size(); ++lane) {
    const std::vector<GroupDigest>& promised = entry.snapshot->lanes[lane].recent_promised;
    for (size_t i = 0; i < promised.size(); ++i) {
      HandoverJob::Item& item = job->items.emplace_back();
      item.at = RecentGroupOf(*entry.snapshot, lane, i);
      item.digest = promised[i];
      bytes += item.at.plane_bytes;
    }
  }
  const uint64_t id = job->id;
  loads_[id] = {tier, &tenant, entry.id, entry.snapshot->rows, bytes, std::nullopt};
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
    job->snapshot = WrittenOf(step->snapshot);
    if (IsWhole(*job->snapshot)) job->tokens = TokensOf(*job->snapshot);
    for (SnapshotGroup& group : GroupsOf(*job->snapshot)) {
      HandoverJob::Item& item = job->items.emplace_back();
      item.digested = group.kept != nullptr && group.kept->digest.has_value();
      if (item.digested) item.digest = *group.kept->digest;
      item.at = std::move(group);
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
  std::vector<LaneLayout> layouts;
  for (const auto& [id, entry] : tenant.prefixes.entries()) {
    for (SnapshotGroup& group : KeptGroupsOf(*entry.snapshot)) {
      if (group.group().extent != &extent) continue;
      const Snapshot::Lane& lane = entry.snapshot->lanes[group.lane];
      layouts.push_back({lane.kept_shapes, lane.records});
      groups[group.kept.get()] = std::move(group.kept);
    }
  }
  if (groups.empty()) return nullptr;  // sequences alone have some, and they end
  auto job = std::make_unique<HandoverJob>();
  job->kind = HandoverJob::Kind::kRehome;
  job->tenant = &tenant;
  job->layouts = std::move(layouts);
  for (auto& [raw, group] : groups) {
    const absl::StatusOr<Group> fresh = allocator.AllocateWithoutMakingRoom();
    if (!fresh.ok()) break;
    HandoverJob::Item item;
    item.copy = std::make_shared<KeptGroup>(*fresh, group->geometry(), allocator, group->records());
    item.copy->slots = group->slots;
    item.copy->digest = group->digest;
    item.at = KeptGroupOf(std::move(group), 0, 0);
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
  // Its recent blocks are in no list of groups.
  if (job->snapshot != nullptr) moving_[kHandoverJobOut] = job->snapshot;
  for (const HandoverJob::Item& item : job->items) {
    if (item.at.kept != nullptr) handing_over_.push_back(item.at.kept);
    if (item.copy != nullptr) handing_over_.push_back(item.copy);
  }
  return job;
}

void KvCore::FinishHandoverJob(std::unique_ptr<HandoverJob> job) {
  handing_over_.clear();
  moving_.erase(kHandoverJobOut);
  switch (job->kind) {
    case HandoverJob::Kind::kVerify:
      FinishVerification(*job);
      break;
    case HandoverJob::Kind::kNote:
      for (const HandoverJob::Item& item : job->items) {
        if (job->status.ok() && item.at.kept != nullptr) item.at.kept->digest = item.digest;
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
    if (item.at.kept == nullptr) continue;
    item.at.kept->digest = item.digest;
    item.at.kept->promised.reset();
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
  for (HandoverJob::Item& item : job.items) copies[item.at.kept.get()] = std::move(item.copy);
  PrefixCache& cache = job.tenant->prefixes;
  std::vector<uint64_t> touched;
  for (const auto& [id, entry] : cache.entries()) {
    const std::vector<SnapshotGroup> groups = KeptGroupsOf(*entry.snapshot);
    if (std::any_of(groups.begin(), groups.end(), [&](const SnapshotGroup& group) {
          return copies.contains(group.kept.get());
        })) {
      touched.push_back(id);
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
