#include "daemon/core/snapshot_store.h"

#include <utility>

namespace kvasir::core {

void SnapshotStore::Add(const SnapshotId& id, std::shared_ptr<const Snapshot> snapshot,
                        Instant made_at) {
  entries_.emplace(id, Entry{std::move(snapshot), nullptr, made_at, ++uses_, false});
}

void SnapshotStore::SetStored(const SnapshotId& id, std::shared_ptr<const Snapshot> stored,
                              Instant now, bool add) {
  const auto found = entries_.find(id);
  if (found != entries_.end()) {
    found->second.stored = std::move(stored);
  } else if (add) {
    entries_.emplace(id, Entry{stored, stored, now, ++uses_, false});
  }
}

void SnapshotStore::SetLoaded(const SnapshotId& id, std::shared_ptr<const Snapshot> snapshot) {
  const auto found = entries_.find(id);
  if (found != entries_.end()) found->second.snapshot = std::move(snapshot);
}

bool SnapshotStore::Rehome(const SnapshotId& id, const Snapshot* from,
                           std::shared_ptr<const Snapshot> to) {
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.snapshot.get() != from) return false;
  found->second.snapshot = std::move(to);
  return true;
}

std::shared_ptr<const Snapshot> SnapshotStore::Find(const SnapshotId& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return nullptr;
  found->second.used = ++uses_;
  return found->second.snapshot;
}

bool SnapshotStore::DropLeastRecentlyUsed(const DeviceMemory* device) {
  auto oldest = entries_.end();
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    if (at->second.snapshot.use_count() > 1) continue;  // dropping it would free nothing now
    if (at->second.snapshot->lanes.empty()) continue;   // it has nothing in memory
    if (at->second.snapshot->device != device) continue;
    if (oldest == entries_.end() || at->second.used < oldest->second.used) oldest = at;
  }
  if (oldest == entries_.end()) return false;
  if (oldest->second.stored != nullptr) {
    oldest->second.snapshot = oldest->second.stored;
  } else {
    entries_.erase(oldest);
  }
  return true;
}

bool SnapshotStore::DropOldestBelow() {
  auto oldest = entries_.end();
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    if (!at->second.snapshot->lanes.empty()) continue;
    if (oldest == entries_.end() || at->second.used < oldest->second.used) oldest = at;
  }
  if (oldest == entries_.end()) return false;
  entries_.erase(oldest);
  return true;
}

void SnapshotStore::SetUnstorable(const SnapshotId& id) {
  const auto found = entries_.find(id);
  if (found != entries_.end()) found->second.unstorable = true;
}

uint64_t SnapshotStore::stored_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [id, entry] : entries_) {
    if (entry.stored != nullptr) bytes += entry.stored->stored->bytes();
  }
  return bytes;
}

}  // namespace kvasir::core
