// What the process before has left in memory is taken over.
#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/whole_snapshot.h"

namespace kvasir::core {

// Builds the snapshots of one adoption: who claims which group of which extent.
class KvCore::Adopter {
 public:
  Adopter(KvCore& core, Adoption& adoption) : core_(core), adoption_(adoption) {}

  // The newer prefix has to be built first: what an older one says of the same group is no longer
  // so. Errors: MakeWhole()'s; kDataLoss naming what does not fit.
  absl::StatusOr<std::shared_ptr<const Snapshot>> Build(Tenant& tenant,
                                                        const StoredPrefix& prefix) {
    KVASIR_ASSIGN_OR_RETURN(const Model model, Model::Create(prefix.facts.model));
    KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelProfile> profile,
                            core_.ProfileOf(model));
    KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, core_.LanesOf(tenant, model, profile, prefix.facts));
    LaneLayouts& layouts = layouts_[{model.fingerprint(), prefix.facts.retention}];
    std::vector<Place> fresh;
    absl::StatusOr<std::shared_ptr<const Snapshot>> made =
        prefix.state.empty()
            ? BuildWhole(tenant, prefix, model, std::move(lanes), &layouts, &fresh)
            : BuildForm(tenant, prefix, model, std::move(lanes), profile, &layouts, &fresh);
    if (!made.ok()) {
      for (const Place& place : fresh) groups_.erase(place);
    }
    return made;
  }

 private:
  using Place = std::pair<uint64_t, uint64_t>;  // extent, offset

  absl::StatusOr<std::shared_ptr<const Snapshot>> BuildWhole(Tenant& tenant,
                                                             const StoredPrefix& prefix,
                                                             const Model& model, PolicyLanes lanes,
                                                             LaneLayouts* layouts,
                                                             std::vector<Place>* fresh) {
    std::vector<std::vector<WholeRun>> runs;
    for (const auto& lane : prefix.lanes) {
      std::vector<WholeRun>& out = runs.emplace_back();
      for (const StoredPrefix::Run& run : lane) {
        out.push_back({run.group_slots, run.rows, run.bytes});
      }
    }
    const auto group_of = [&](size_t lane, size_t index, uint64_t row,
                              const shm::GroupGeometry& geometry) {
      const StoredPrefix::Run& run = prefix.lanes[lane][index];
      return GroupOf(tenant, run, WholeSlots(row, std::span(prefix.tokens).subspan(row, run.rows)),
                     geometry, nullptr, fresh);
    };
    return MakeWhole(model, prefix.facts, std::move(lanes), prefix.tokens, runs, layouts, group_of);
  }

  absl::StatusOr<std::shared_ptr<const Snapshot>> BuildForm(
      Tenant& tenant, const StoredPrefix& prefix, const Model& model, PolicyLanes lanes,
      const std::shared_ptr<const ModelProfile>& profile, LaneLayouts* layouts,
      std::vector<Place>* fresh) {
    const auto run_of = [&](uint32_t lane, size_t index,
                            uint64_t plane_bytes) -> absl::StatusOr<const StoredPrefix::Run*> {
      const std::vector<StoredPrefix::Run>& runs = prefix.lanes[lane];
      if (index < runs.size() && runs[index].bytes == plane_bytes) return &runs[index];
      return DataLoss("a group is not named, or has another shape: lane={} group={}", lane, index);
    };
    GroupSupply supply;
    supply.kept = [&](WantedGroup wanted) -> absl::StatusOr<std::shared_ptr<KeptGroup>> {
      KVASIR_ASSIGN_OR_RETURN(const StoredPrefix::Run* const run,
                              run_of(wanted.lane, wanted.index, PlaneBytes(*wanted.geometry)));
      return GroupOf(tenant, *run, std::move(wanted.slots), *wanted.geometry, wanted.records,
                     fresh);
    };
    supply.recent_allocator = [&](uint64_t bytes) -> GroupAllocator& {
      return tenant.outside.For(bytes);
    };
    supply.recent = [&](uint32_t lane, size_t index, uint64_t plane_bytes,
                        BlockList* into) -> absl::StatusOr<std::optional<GroupDigest>> {
      KVASIR_ASSIGN_OR_RETURN(const StoredPrefix::Run* const run, run_of(lane, index, plane_bytes));
      KVASIR_ASSIGN_OR_RETURN(Extent * extent, ExtentOf(tenant, *run, into->allocator()));
      KVASIR_ASSIGN_OR_RETURN(const Group group, into->allocator().Claim(*extent, run->offset));
      into->Take(group);
      return run->digest;
    };
    return RestoreSnapshot(model, prefix.facts, std::move(lanes), profile, prefix.state, layouts,
                           supply);
  }

  absl::StatusOr<std::shared_ptr<KeptGroup>> GroupOf(Tenant& tenant, const StoredPrefix::Run& run,
                                                     std::vector<KeptSlot> slots,
                                                     const shm::GroupGeometry& geometry,
                                                     const LaneRecords* records,
                                                     std::vector<Place>* fresh) {
    const Place place{run.extent, run.offset};
    if (const auto known = groups_.find(place); known != groups_.end()) {
      KeptGroup& group = *known->second;
      const size_t both = std::min(slots.size(), group.slots.size());
      // Of the tenant: two that go on from a public one's rows name the same groups.
      const bool same = &group.allocator() == &tenant.kept.For(geometry.bytes) &&
                        group.promised == run.digest && &group.geometry() == &geometry &&
                        group.records() == records &&
                        (slots.size() == group.slots.size() || group.columns() == 1) &&
                        std::equal(slots.begin(), slots.begin() + static_cast<ptrdiff_t>(both),
                                   group.slots.begin());
      if (!same) return DataLoss("a group is another's now: extent={}", run.extent);
      if (slots.size() > both) group.slots = std::move(slots);
      return known->second;
    }
    GroupAllocator& allocator = tenant.kept.For(geometry.bytes);
    KVASIR_ASSIGN_OR_RETURN(Extent * extent, ExtentOf(tenant, run, allocator));
    KVASIR_ASSIGN_OR_RETURN(const Group group, allocator.Claim(*extent, run.offset));
    auto kept = std::make_shared<KeptGroup>(group, geometry, allocator, records);
    kept->slots = std::move(slots);
    kept->promised = run.digest;
    groups_[place] = kept;
    fresh->push_back(place);
    return kept;
  }

  absl::StatusOr<Extent*> ExtentOf(Tenant& tenant, const StoredPrefix::Run& run,
                                   GroupAllocator& allocator) {
    const uint64_t group_bytes = allocator.group_bytes();
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
      owned = {&tenant, offered->second.get(), &allocator};
      tenant.account.Adopt(*owned.extent);
      const absl::Status adopted = allocator.Adopt(std::move(offered->second));
      adoption_.extents.erase(offered);
      if (!adopted.ok()) owned = {};
      KVASIR_RETURN_IF_ERROR(adopted);
    }
    if (owned.tenant != &tenant || owned.allocator != &allocator) {
      return DataLoss("an extent is of others: id={} group_bytes={}", run.extent, group_bytes);
    }
    return owned.extent;
  }

  struct Owned {
    Tenant* tenant = nullptr;
    Extent* extent = nullptr;  // owned by an allocator of the tenant's
    const GroupAllocator* allocator = nullptr;
  };

  KvCore& core_;
  Adoption& adoption_;
  std::map<Place, std::shared_ptr<KeptGroup>> groups_;  // shared with the snapshots
  std::map<uint64_t, Owned> owned_;
  std::map<std::pair<std::array<uint8_t, 16>, std::string>, LaneLayouts> layouts_;
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
    for (AllocatorSet* const groups : {&tenant->kept, &tenant->outside}) {
      groups->EndAdoption();
      counts.bytes += groups->frozen_bytes();
    }
  }
  for (auto& [id, extent] : adoption.extents) pool_.Return(std::move(extent));  // nobody names them
  (void)Settle();
  return counts;
}

}  // namespace kvasir::core
