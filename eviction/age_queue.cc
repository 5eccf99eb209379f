#include "eviction/age_queue.h"

#include <algorithm>

namespace kvasir::eviction {

void AgeQueue::Note(const Tails& tails, uint32_t bucket) {
  const TailId front = FrontOf(bucket);
  due_[bucket] = front == kNoTail ? kNever : tails[front].idle_from + EdgesInMicros()[bucket + 1];
}

void AgeQueue::Insert(Tails& tails, TailId id) {
  Tail& tail = tails[id];
  const uint32_t bucket = tail.bucket;
  if (bucket + 1 >= kBuckets) return;
  if (bucket == 0) {
    first_.Insert(tails, id);
  } else {
    tail.timer = HeapNode{kNoTail, kNoTail, back_[bucket]};
    (back_[bucket] == kNoTail ? front_[bucket] : tails[back_[bucket]].timer.next) = id;
    back_[bucket] = id;
  }
  Note(tails, bucket);
}

void AgeQueue::Remove(Tails& tails, TailId id) {
  const Tail& tail = tails[id];
  const uint32_t bucket = tail.bucket;
  if (bucket + 1 >= kBuckets) return;
  if (bucket == 0) {
    first_.Remove(tails, id);
  } else {
    const HeapNode node = tail.timer;
    (node.previous == kNoTail ? front_[bucket] : tails[node.previous].timer.next) = node.next;
    (node.next == kNoTail ? back_[bucket] : tails[node.next].timer.previous) = node.previous;
  }
  Note(tails, bucket);
}

TailId AgeQueue::FirstDue(const Tails& tails, int64_t now) const {
  const int64_t earliest = *std::min_element(due_.begin(), due_.end());
  if (earliest > now) return kNoTail;
  TailId first = kNoTail;
  for (uint32_t bucket = 0; bucket < kBuckets; ++bucket) {
    if (due_[bucket] != earliest) continue;
    const TailId front = FrontOf(bucket);
    if (first == kNoTail || tails[front].serial < tails[first].serial) first = front;
  }
  return first;
}

}  // namespace kvasir::eviction
