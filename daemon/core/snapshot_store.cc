#include "daemon/core/snapshot_store.h"

#include <utility>

namespace kvasir::core {

void SnapshotStore::Add(const SnapshotId& id, std::shared_ptr<const Snapshot> snapshot,
                        Instant made_at) {
  entries_.emplace(id, Entry{std::move(snapshot), made_at, ++uses_});
}

std::shared_ptr<const Snapshot> SnapshotStore::Find(const SnapshotId& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return nullptr;
  found->second.used = ++uses_;
  return found->second.snapshot;
}

bool SnapshotStore::DropLeastRecentlyUsed() {
  auto oldest = entries_.end();
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    if (at->second.snapshot.use_count() > 1) continue;  // dropping it would free nothing now
    if (oldest == entries_.end() || at->second.used < oldest->second.used) oldest = at;
  }
  if (oldest == entries_.end()) return false;
  entries_.erase(oldest);
  return true;
}

}  // namespace kvasir::core
