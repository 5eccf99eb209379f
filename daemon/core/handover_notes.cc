#include "daemon/core/handover_notes.h"

#include "daemon/core/snapshot_state.h"

namespace kvasir::core {

std::optional<HandoverNotes::Step> HandoverNotes::Next(const PrefixCache& cache) {
  if (!superseded_.empty()) {
    const uint64_t record = superseded_.front();
    superseded_.pop_front();
    return Step{nullptr, 0, record};
  }
  if (changes_seen_ == cache.changes()) return std::nullopt;
  for (const auto& [id, entry] : cache.entries()) {
    Note& note = notes_[id];
    if (note.snapshot.lock() == entry.snapshot || !CanBeStored(*entry.snapshot)) continue;
    note.snapshot = entry.snapshot;
    return Step{entry.snapshot, id, 0};
  }
  for (auto note = notes_.begin(); note != notes_.end();) {
    if (cache.entries().contains(note->first)) {
      ++note;
      continue;
    }
    if (note->second.record != 0) superseded_.push_back(note->second.record);
    note = notes_.erase(note);
  }
  changes_seen_ = cache.changes();
  return superseded_.empty() ? std::nullopt : Next(cache);
}

void HandoverNotes::Noted(uint64_t entry, uint64_t record) {
  const auto note = notes_.find(entry);
  if (note == notes_.end()) {  // gone meanwhile
    if (record != 0) superseded_.push_back(record);
    return;
  }
  if (note->second.record != 0) superseded_.push_back(note->second.record);
  note->second.record = record;
}

}  // namespace kvasir::core
