// Tenant: who pays. Its accounts, its extents for kept rows, its snapshots, its counters.
#ifndef KVASIR_DAEMON_CORE_TENANT_H_
#define KVASIR_DAEMON_CORE_TENANT_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "allocator/group_allocator.h"
#include "daemon/core/account.h"
#include "daemon/core/handover_notes.h"
#include "daemon/core/prefix_cache.h"
#include "daemon/core/prefix_demand.h"
#include "daemon/core/prefix_store.h"
#include "daemon/core/response_log.h"
#include "daemon/core/snapshot_store.h"
#include "daemon/core/tenant_device.h"

namespace kvasir::core {

struct TenantConfig {
  std::string name;
  std::vector<uint32_t> uids;
  uint64_t limit_bytes = 0;
  std::string retention;                  // default policy of its sequences
  bool is_public = false;                 // every tenant may find its prefixes
  uint64_t stored_bytes = 0;              // Budget::disk_bytes
  std::vector<std::string> degrade = {};  // what becomes of its prefixes, rung by rung; checked
  uint64_t reserved_bytes = 0;            // of the pool
  uint32_t weight = 1;
  std::vector<uint32_t> gids = {};
  std::vector<std::string> cgroups = {};  // patterns of TenantRules; checked
  uint64_t disk_reserved_bytes = 0;
  uint64_t remote_bytes = std::numeric_limits<uint64_t>::max();
  CountLimits counts = {};
  std::vector<DeviceBudget> devices = {};  // in the order of the pools

  Budget budget() const {
    return {reserved_bytes, limit_bytes,  weight, disk_reserved_bytes,
            stored_bytes,   remote_bytes, counts, devices};
  }
};

struct TenantCounters {
  uint64_t compactions = 0;
  uint64_t rejected_calls = 0;
  uint64_t violations = 0;
  uint64_t snapshots_dropped = 0;     // to make room
  uint64_t prefix_lookups = 0;        // sequences opened with a prefix that may be shared
  uint64_t prefix_hits = 0;           // of those, such that did not begin at row 0
  uint64_t prefix_rows = 0;           // of the prompts that were asked with
  uint64_t prefix_rows_hit = 0;       // of those, rows that were there
  uint64_t condensings = 0;           // prefixes that were brought into a smaller form
  uint64_t condensed_rows = 0;        // of them
  uint64_t condensed_bytes = 0;       // that they hold less for it
  uint64_t condensing_failures = 0;   // begun, and given up
  uint64_t suspensions_asked = 0;     // of sequences, while memory was short
  uint64_t sequences_taken_back = 0;  // ended, because others wanted their memory
  uint64_t sessions_taken_back = 0;   // likewise
  uint64_t bytes_taken_back = 0;      // of extents that somebody still held
};

// Group allocators by group size, made when first asked for. Not thread-safe.
class AllocatorSet final : public GroupSource {
 public:
  AllocatorSet(ExtentUse use, uint64_t first_extent_bytes, uint64_t extent_bytes,
               ExtentSource& source)
      : use_(use),
        first_extent_bytes_(first_extent_bytes),
        extent_bytes_(extent_bytes),
        source_(source) {}

  GroupAllocator& For(uint64_t group_bytes) {
    std::unique_ptr<GroupAllocator>& slot = by_bytes_[group_bytes];
    if (slot == nullptr) {
      slot = std::make_unique<GroupAllocator>(
          GroupAllocator::Options{group_bytes, use_, first_extent_bytes_, extent_bytes_}, source_);
    }
    return *slot;
  }
  GroupAllocator& For(const shm::GroupGeometry& geometry) override { return For(geometry.bytes); }
  uint64_t held_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [size, allocator] : by_bytes_) bytes += allocator->held_bytes();
    return bytes;
  }
  uint64_t charged_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [size, allocator] : by_bytes_) bytes += allocator->charged_bytes();
    return bytes;
  }
  bool Owns(const GroupAllocator* allocator) const {
    return std::any_of(by_bytes_.begin(), by_bytes_.end(),
                       [&](const auto& one) { return one.second.get() == allocator; });
  }
  uint64_t frozen_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [size, allocator] : by_bytes_) {
      for (const GroupAllocator::Frozen& frozen : allocator->FrozenExtents()) {
        bytes += frozen.extent->bytes();
      }
    }
    return bytes;
  }
  void EndAdoption() {
    for (const auto& [size, allocator] : by_bytes_) allocator->EndAdoption();
  }
  const std::map<uint64_t, std::unique_ptr<GroupAllocator>>& by_bytes() const { return by_bytes_; }
  bool ReturnEmptyExtents() {
    bool any = false;
    for (const auto& [size, allocator] : by_bytes_) any |= allocator->ReturnEmptyExtents();
    return any;
  }
  bool AnyUnmapped() const {
    return std::any_of(by_bytes_.begin(), by_bytes_.end(),
                       [](const auto& one) { return one.second->AnyUnmapped(); });
  }
  // Gives extents that hold nothing and that nobody else has to the source.
  void ReturnIdleExtents() {
    for (const auto& [size, allocator] : by_bytes_) allocator->ReturnIdleExtents();
  }
  // Gives every extent to the source. REQUIRES: nothing is held.
  void Clear() { by_bytes_.clear(); }

 private:
  const ExtentUse use_;
  const uint64_t first_extent_bytes_;
  const uint64_t extent_bytes_;
  ExtentSource& source_;
  std::map<uint64_t, std::unique_ptr<GroupAllocator>> by_bytes_;
};

// Not thread-safe. Address-stable: sessions refer to it.
struct Tenant {
  Tenant(TenantConfig tenant_config, HostPool& pool, Lender& lender, uint64_t first_extent_bytes,
         uint64_t extent_bytes, const ChainKey& tier_key, PrefixCache prefix_cache)
      : key(tier_key),
        config(std::move(tenant_config)),
        account(config.name, config.budget(), pool, &lender),
        kept(ExtentUse::kKept, first_extent_bytes, extent_bytes, account),
        outside(ExtentUse::kKept, first_extent_bytes, extent_bytes, account),
        prefixes(std::move(prefix_cache)),
        demand(config.limit_bytes) {
    account.set_make_room([this] { return MakeRoom(); });
  }
  Tenant(const Tenant&) = delete;
  Tenant& operator=(const Tenant&) = delete;

  // Gives back what no session can use any more: everything, or what neither snapshots nor prefixes
  // nor others' sequences hold. REQUIRES: it has no session.
  void ReturnExtents();
  // Gives up the prefixes that nobody uses, in memory and in the tiers; how many it were.
  uint64_t DropPrefixes();
  // Gives up a little of what it holds for later only, for a pool that has become too small; false
  // if that would free no extent: there is nothing, or engines have all of its extents mapped.
  bool ShedCached();
  // Gives up what is worth least of those in memory; false where that frees nothing.
  bool GivesUpPrefix();
  // Gives up a little of what it holds for later only, whether engines have it mapped or not; false
  // if there is nothing.
  bool GivesUpCached() { return MakeRoom(); }
  // What has been freed is given back, as far as that is possible.
  void GiveBack() {
    if (sessions == 0) return ReturnExtents();
    (void)ReturnIdle();
  }
  // Bytes of its cached rows and of kept rows of its sequences.
  uint64_t kept_bytes() const { return kept.held_bytes() + outside.held_bytes(); }
  // Gives up every snapshot and prefix.
  void DropCached();
  // Gives back of devices what nobody holds any more; true if some is still held.
  bool SettleDevices();
  // Gives up a little of what it holds on a device for later only: the prefixes that are worth
  // least, then the snapshot that was used longest ago. False if there is nothing, or if groups are
  // not `of_use` and engines have all of its extents mapped.
  bool GivesUpCachedOn(TenantDevice& device, bool of_use);
  // Where the prefixes are whose rows lie in the memory of a device; null: host memory.
  PrefixCache& PrefixesIn(const DeviceMemory* device);

  const ChainKey key;  // of the tenant in the keys of tiers
  size_t place = 0;    // in the configuration; set once, by the core
  const TenantConfig config;
  Account account;
  AllocatorSet kept;
  // What no engine maps: sealed blocks, until they are looked up, and recent blocks of snapshots.
  AllocatorSet outside;
  // By pool. Before the account goes, whose host memory their trailers are.
  std::vector<std::unique_ptr<TenantDevice>> devices;
  // After the sets that their groups are of, and before the snapshots, which name blocks of theirs.
  std::vector<std::unique_ptr<PrefixStore>> stores;  // one for each tier
  SnapshotStore snapshots;
  PrefixCache prefixes;
  PrefixDemand demand;
  PrefixStore* adopted = nullptr;                // the last of them, where there is one
  HandoverNotes notes;                           // of `prefixes`
  std::map<uint64_t, uint64_t> adopted_records;  // of `adopted`, by entry
  Instant rehome_rest_until;
  bool pressed = false;  // its memory is between the watermarks, or above
  // Ends what makes a prefix of its smaller: where that prefix has gone, or `always`. True where
  // that has freed something. Set once, by the core, where the tenant has a ladder.
  std::function<bool(bool always)> end_condensing;
  // While memory is taken for that, nothing cached is given up for it.
  bool keeps_cached = false;
  // While rows move that are only cached or go by themselves, no saved sequence is given up.
  bool keeps_saved = false;
  uint64_t prefix_drops = 0;               // how often DropPrefixes() was called
  std::map<uint64_t, size_t> rungs_tried;  // of the ladder, by entry of `prefixes`; without effect
  TenantCounters counters;
  uint32_t sessions = 0, sequences = 0, models = 0;
  ResponseLog responses;
  Instant suspensions_asked_at;      // when its boards were last looked at
  bool suspensions_asked = false;    // some board says so
  uint32_t overriding_sessions = 0;  // of processes that can override file permissions
  uint64_t wanted_back = 0;          // bytes that its sessions were asked for; 0: none are
  Instant take_back_at;              // when its sequences begin to end
  Instant owed_until;                // asked again before that, it has no more time

 private:
  // Idle extents go first, then the prefixes that are worth least, then the snapshot that was used
  // longest ago. False if there is nothing.
  bool MakeRoom();
  // Idle extents that nobody has mapped become memory of the account again; true if there were any.
  bool ReturnIdle();
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TENANT_H_
