// HandoverNotes: which cached prefixes of a tenant are written down for the process that comes
// after this one, and what is to be written or struck out next.
//
// Not thread-safe: under the core's lock. Cost: a walk over the cache after each change of it, when
// somebody asks.
#ifndef KVASIR_DAEMON_CORE_HANDOVER_NOTES_H_
#define KVASIR_DAEMON_CORE_HANDOVER_NOTES_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "daemon/core/prefix_cache.h"

namespace kvasir::core {

class HandoverNotes {
 public:
  // Either a prefix to be written down or a record to be struck out.
  struct Step {
    std::shared_ptr<const Snapshot> snapshot;  // shared with the cache; null: strike `record` out
    uint64_t entry = 0;
    uint64_t record = 0;
  };
  // What is to be done next; each is said once.
  std::optional<Step> Next(const PrefixCache& cache);
  // A prefix that a process before has written down.
  void Inherit(uint64_t entry, const std::shared_ptr<const Snapshot>& snapshot, uint64_t record) {
    notes_[entry] = {snapshot, record};
  }
  // To be struck out: of no entry.
  void Orphan(uint64_t record) { superseded_.push_back(record); }
  // A prefix of Next() is written down; 0: it could not be, and is not tried again.
  void Noted(uint64_t entry, uint64_t record);

  uint64_t records() const {
    return static_cast<uint64_t>(std::count_if(
        notes_.begin(), notes_.end(), [](const auto& note) { return note.second.record != 0; }));
  }

 private:
  struct Note {
    std::weak_ptr<const Snapshot> snapshot;  // as it was written down, or is about to be
    uint64_t record = 0;                     // 0: none yet
  };

  std::map<uint64_t, Note> notes_;  // by entry
  std::deque<uint64_t> superseded_;
  std::optional<uint64_t> changes_seen_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_HANDOVER_NOTES_H_
