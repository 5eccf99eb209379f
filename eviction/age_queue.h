// Tails by the time at which they pass into the next age bucket.
//
// In a bucket that order is the one in which they became idle, and they come out of it in that
// order: so each bucket but the first is a plain queue, whatever its length. Into the first they
// come as their sequences end, in any order: that one is a heap, of the tails of a few seconds.
//
// Thread-compatible. Cost: First() looks at 36 numbers; Insert and Remove are O(1), and O(log tails
// of the first bucket) there.
#ifndef KVASIR_EVICTION_AGE_QUEUE_H_
#define KVASIR_EVICTION_AGE_QUEUE_H_

#include <array>
#include <cstdint>
#include <limits>

#include "eviction/age_buckets.h"
#include "eviction/tail_heap.h"

namespace kvasir::eviction {

class AgeQueue {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  AgeQueue() { due_.fill(kNever); }

  // In the tail's bucket. The last bucket has no next: nothing happens. REQUIRES: not in the queue,
  // and in buckets after the first not idle for longer than those there.
  void Insert(Tails& tails, TailId tail);
  // REQUIRES: its bucket is the one it was inserted with.
  void Remove(Tails& tails, TailId tail);

  // The one due first, if it is by `now`: the older tail among equals. kNoTail: none.
  TailId FirstDue(const Tails& tails, int64_t now) const;

 private:
  struct ByIdleTime {
    static HeapNode& Node(Tail& tail) { return tail.timer; }
    static bool Less(const Tail& a, const Tail& b) {
      return a.idle_from != b.idle_from ? a.idle_from < b.idle_from : a.serial < b.serial;
    }
  };

  TailId FrontOf(uint32_t bucket) const { return bucket == 0 ? first_.first() : front_[bucket]; }
  void Note(const Tails& tails, uint32_t bucket);

  TailHeap<ByIdleTime> first_;
  // By bucket; those of the first are unused.
  std::array<TailId, kBuckets> front_ = Filled();
  std::array<TailId, kBuckets> back_ = Filled();
  std::array<int64_t, kBuckets> due_;  // of each bucket's front

  static constexpr std::array<TailId, kBuckets> Filled() {
    std::array<TailId, kBuckets> none{};
    none.fill(kNoTail);
    return none;
  }
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_AGE_QUEUE_H_
