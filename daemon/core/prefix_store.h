// PrefixStore: the prefixes of one tenant that lie in one tier, and the rule by which they make
// room there: an eviction policy of its own, fed by what is stored and loaded.
//
// An entry is a snapshot without lanes (Snapshot::stored). Not thread-safe.
#ifndef KVASIR_DAEMON_CORE_PREFIX_STORE_H_
#define KVASIR_DAEMON_CORE_PREFIX_STORE_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "base/clock.h"
#include "daemon/core/prefix_cache.h"
#include "daemon/core/stored_rows.h"
#include "daemon/core/whole_snapshot.h"

namespace kvasir::core {

struct PrefixStoreCounters {
  uint64_t loads = 0;           // prefixes that were read back
  uint64_t load_rows = 0;       // of them
  uint64_t load_failures = 0;   // begun, and a miss after all
  uint64_t loads_declined = 0;  // computing is said to be faster, or nobody waited any longer
  uint64_t stores = 0;          // prefixes that were written
  uint64_t store_failures = 0;
};

class PrefixStore {
 public:
  PrefixStore(PrefixCache::Options options, PrefixEvents& events, const Instant& now,
              const std::string& tenant, uint64_t limit_bytes)
      : limit_bytes_(limit_bytes), cache_(std::move(options), events, now, tenant) {}

  // Evicts until `bytes` more have room; false where that cannot be.
  bool MakeRoom(uint64_t bytes) {
    if (bytes > limit_bytes_) return false;
    while (books_.bytes() + bytes > limit_bytes_) {
      if (!cache_.MakeRoom()) return false;
    }
    return true;
  }

  // What WrittenOf() the snapshot is there, or more.
  bool Has(const Snapshot& snapshot) const {
    return IsWhole(snapshot) ? cache_.Has(*snapshot.chain, snapshot.form) : cache_.HasOf(snapshot);
  }

  StoredBooks& books() { return books_; }
  const StoredBooks& books() const { return books_; }
  PrefixCache& cache() { return cache_; }
  const PrefixCache& cache() const { return cache_; }
  uint64_t limit_bytes() const { return limit_bytes_; }
  // What is above it is evicted.
  void set_limit_bytes(uint64_t bytes) {
    limit_bytes_ = bytes;
    (void)MakeRoom(0);
  }

  PrefixStoreCounters counters;
  std::deque<uint64_t> wanted;  // entries of the memory's cache that an operator wants here
  bool saved_wanted = false;    // and every saved sequence
  uint64_t out = 0;             // store jobs that are under way
  Instant rest_until;           // after a failure nothing is written of its own accord until then

 private:
  uint64_t limit_bytes_;
  StoredBooks books_;  // before what names its blocks
  PrefixCache cache_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_PREFIX_STORE_H_
