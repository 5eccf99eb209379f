// The candidates for eviction: tails in one dead list, one old list and 720 cells.
//
// First() is the next victim's tail: of the dead, else of the old, else of the first cell in index
// order that is not empty; in a list the one with the lowest order key. Dead tails have a hopeless
// score. Old ones are past the ages at which nearly all returns come: too rare to learn from, so
// they go by idle time, with a small credit for the score.
//
// Thread-compatible. Cost: O(log tails) amortised; a change of the old bucket visits all tails.
#ifndef KVASIR_EVICTION_TAIL_LISTS_H_
#define KVASIR_EVICTION_TAIL_LISTS_H_

#include <array>
#include <cstdint>

#include "eviction/cell_index.h"
#include "eviction/tail_heap.h"

namespace kvasir::eviction {

class TailLists {
 public:
  explicit TailLists(double old_bonus) : old_bonus_(old_bonus) {}

  // By the tail's level, bucket and idle_from; those stay as they are while it is listed.
  // REQUIRES: not listed.
  void Add(Tails& tails, TailId tail);
  // No effect on one that is not listed.
  void Remove(Tails& tails, TailId tail);

  // kNoTail when none is listed.
  TailId First() const;

  // Tails move between cells and the old list where it changed.
  void SetOldBucket(Tails& tails, uint32_t old_bucket);
  // Cells are ordered anew.
  void Reindex(const HazardStatistics& statistics);

  const CellIndex& index() const { return index_; }
  TailList ListOf(uint8_t level, uint8_t bucket) const;

 private:
  struct ByOrderKey {
    static HeapNode& Node(Tail& tail) { return tail.listed; }
    static bool Less(const Tail& a, const Tail& b) {
      return a.order_key != b.order_key ? a.order_key < b.order_key : a.serial < b.serial;
    }
  };
  using Heap = TailHeap<ByOrderKey>;

  Heap& HeapOf(const Tail& tail);
  void Mark(uint32_t cell);

  double old_bonus_;
  uint32_t old_bucket_ = kBuckets;
  CellIndex index_;
  Heap dead_, old_;
  std::array<Heap, kCells> cells_;
  std::array<uint64_t, (kCells + 63) / 64> filled_{};  // by rank
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_TAIL_LISTS_H_
