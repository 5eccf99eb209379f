// SnapshotStore: the snapshots of one tenant, by id and by how long ago they were used.
//
// Not thread-safe. Whoever goes on from a snapshot shares it, so one that is dropped meanwhile is
// destroyed a little later.
#ifndef KVASIR_DAEMON_CORE_SNAPSHOT_STORE_H_
#define KVASIR_DAEMON_CORE_SNAPSHOT_STORE_H_

#include <cstdint>
#include <map>
#include <memory>

#include "base/clock.h"
#include "daemon/core/snapshot.h"

namespace kvasir::core {

class SnapshotStore {
 public:
  struct Entry {
    // Shared with those who go on from it. Where memory has given it up, it is `stored`.
    std::shared_ptr<const Snapshot> snapshot;
    std::shared_ptr<const Snapshot>
        stored;  // as it lies in a tier, without lanes; null: it does not
    Instant made_at;
    uint64_t used = 0;        // larger: later
    bool unstorable = false;  // SaveSnapshot() has said no
  };

  // REQUIRES: there is none of this id.
  void Add(const SnapshotId& id, std::shared_ptr<const Snapshot> snapshot, Instant made_at);
  // Counts as a use; null if there is none.
  std::shared_ptr<const Snapshot> Find(const SnapshotId& id);
  // It lies in a tier, too. `add`: where there is none of this id there is one now.
  void SetStored(const SnapshotId& id, std::shared_ptr<const Snapshot> stored, Instant now,
                 bool add);
  // It is in memory again; where it was dropped meanwhile, it is not.
  void SetLoaded(const SnapshotId& id, std::shared_ptr<const Snapshot> snapshot);
  // Its rows lie elsewhere now. False where it has been dropped, or has become another meanwhile.
  bool Rehome(const SnapshotId& id, const Snapshot* from, std::shared_ptr<const Snapshot> to);
  // False if there was none.
  bool Drop(const SnapshotId& id) { return entries_.erase(id) > 0; }
  // Of those whose rows lie in the memory of `device` (null: the host's) gives up the memory of the
  // one that was used longest ago and that nobody goes on from at this moment: what lies in a tier
  // is there still, what does not is dropped. False if there is none. Cost: O(size).
  bool DropLeastRecentlyUsed(const DeviceMemory* device);

  // Drops the one that was used longest ago of those that lie in a tier alone; false if there is
  // none.
  bool DropOldestBelow();
  void SetUnstorable(const SnapshotId& id);

  // Of the groups that lie in a tier.
  uint64_t stored_bytes() const;
  uint64_t size() const { return entries_.size(); }
  const std::map<SnapshotId, Entry>& entries() const { return entries_; }

 private:
  std::map<SnapshotId, Entry> entries_;
  uint64_t uses_ = 0;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SNAPSHOT_STORE_H_
