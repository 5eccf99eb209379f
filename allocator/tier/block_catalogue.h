// BlockCatalogue: what a tier with places of its own holds: which block lies where.
//
// Thread-safe (a leaf lock). About 180 bytes of memory a block: 130 MiB for a TiB of 1.4 MiB
// blocks. A block's units are given back when the last reader lets go of its placement, so a read
// that has begun ends well whatever is erased meanwhile.
#ifndef KVASIR_ALLOCATOR_TIER_BLOCK_CATALOGUE_H_
#define KVASIR_ALLOCATOR_TIER_BLOCK_CATALOGUE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>

#include "allocator/tier/space_map.h"
#include "allocator/tier/tier_key.h"
#include "base/mutex.h"

namespace kvasir {

class BlockCatalogue;

// Units that a block has; gives them back when destroyed.
class Placement {
 public:
  Placement(BlockCatalogue& catalogue, uint64_t payload_bytes, UnitRuns runs)
      : catalogue_(catalogue), payload_bytes_(payload_bytes), runs_(std::move(runs)) {}
  ~Placement();
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;

  uint64_t payload_bytes() const { return payload_bytes_; }
  std::span<const UnitRun> runs() const { return runs_; }

  // A read met an error of the place: the block stays, and a write of its key replaces it.
  void MarkFailed() const { failed_.store(true, std::memory_order_relaxed); }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }

 private:
  friend class BlockCatalogue;
  BlockCatalogue& catalogue_;
  const uint64_t payload_bytes_;
  UnitRuns runs_;  // changes only while nobody reads: BlockCatalogue::Shrink()
  mutable std::atomic<bool> failed_{false};
};

// Shared truly: by the catalogue and by every read that is under way.
using PlacementRef = std::shared_ptr<Placement>;

class BlockCatalogue {
 public:
  // REQUIRES: unit_bytes > 0. The catalogue outlives its placements.
  BlockCatalogue(uint64_t units, uint64_t unit_bytes) : unit_bytes_(unit_bytes), space_(units) {}

  // Units for `stored_bytes` bytes, that nobody can find yet. Errors: kResourceExhausted.
  absl::StatusOr<PlacementRef> Reserve(uint64_t payload_bytes, uint64_t stored_bytes);

  // The block can be found from now on. False when the key is there already (and has not failed).
  bool Publish(const TierKey& key, const PlacementRef& placement);

  // A block of an earlier life. False when the key is there or its units are not free.
  bool Restore(const TierKey& key, uint64_t payload_bytes, UnitRuns runs);

  // Where the block lies, or nothing.
  PlacementRef Find(const TierKey& key) const;
  // As Find, but for blocks that have failed: is a write of this key done already?
  bool Holds(const TierKey& key) const;

  // Out of the catalogue; the units are free when the result and all readers' are gone. Nothing
  // when it is not there. With `only`: nothing unless the key has this placement.
  PlacementRef Remove(const TierKey& key, const Placement* only = nullptr);

  // A copy of what is there.
  std::vector<std::pair<TierKey, uint64_t>> List() const;

  struct Counts {
    uint64_t units = 0;
    uint64_t free_units = 0;
    uint64_t blocks = 0;
  };
  Counts counts() const;

  void Grow(uint64_t units);

  // Makes the place smaller: moves what lies in the units that go to others by `move`, and then
  // drops them. Errors: kResourceExhausted when more than `units` are taken; nothing moved then.
  // REQUIRES: nobody reads, and no reserved placement is unpublished, until it returns.
  absl::Status Shrink(uint64_t units,
                      const std::function<void(const UnitRun& from, const UnitRuns& to)>& move);

 private:
  friend class Placement;
  void GiveBack(std::span<const UnitRun> runs);

  const uint64_t unit_bytes_;
  mutable Mutex mutex_;
  SpaceMap space_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<TierKey, PlacementRef> blocks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_BLOCK_CATALOGUE_H_
