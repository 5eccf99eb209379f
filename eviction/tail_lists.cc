#include "eviction/tail_lists.h"

#include <algorithm>
#include <bit>
#include <vector>

namespace kvasir::eviction {

TailList TailLists::ListOf(uint8_t level, uint8_t bucket) const {
  if (level == 0) return TailList::kDead;
  return bucket >= old_bucket_ ? TailList::kOld : TailList::kCell;
}

TailLists::Heap& TailLists::HeapOf(const Tail& tail) {
  if (tail.list == TailList::kDead) return dead_;
  if (tail.list == TailList::kOld) return old_;
  return cells_[CellOf(tail.level, tail.bucket)];
}

void TailLists::Mark(uint32_t cell) {
  const uint32_t rank = index_.RankOf(cell);
  const uint64_t bit = uint64_t{1} << rank % 64;
  filled_[rank / 64] = cells_[cell].empty() ? filled_[rank / 64] & ~bit : filled_[rank / 64] | bit;
}

void TailLists::Add(Tails& tails, TailId id) {
  Tail& tail = tails[id];
  tail.list = ListOf(tail.level, tail.bucket);
  tail.order_key = static_cast<double>(tail.idle_from);
  if (tail.list == TailList::kOld) {
    tail.order_key += old_bonus_ * static_cast<double>(EdgesInMicros()[old_bucket_]) * 0.25 *
                      (static_cast<double>(tail.level) - 12);
  }
  HeapOf(tail).Insert(tails, id);
  if (tail.list == TailList::kCell) Mark(CellOf(tail.level, tail.bucket));
}

void TailLists::Remove(Tails& tails, TailId id) {
  Tail& tail = tails[id];
  if (tail.list == TailList::kNone) return;
  HeapOf(tail).Remove(tails, id);
  if (tail.list == TailList::kCell) Mark(CellOf(tail.level, tail.bucket));
  tail.list = TailList::kNone;
}

TailId TailLists::First() const {
  if (!dead_.empty()) return dead_.first();
  if (!old_.empty()) return old_.first();
  for (size_t word = 0; word < filled_.size(); ++word) {
    if (filled_[word] == 0) continue;
    const size_t rank = word * 64 + static_cast<size_t>(std::countr_zero(filled_[word]));
    return cells_[index_.CellAt(static_cast<uint32_t>(rank))].first();
  }
  return kNoTail;
}

void TailLists::SetOldBucket(Tails& tails, uint32_t old_bucket) {
  if (old_bucket == old_bucket_) return;
  const uint32_t from = std::min(old_bucket, old_bucket_);
  std::vector<TailId> moved;
  for (TailId id = 0; id < tails.made(); ++id) {
    if (tails[id].list == TailList::kNone || tails[id].bucket < from) continue;
    moved.push_back(id);
    Remove(tails, id);
  }
  old_bucket_ = old_bucket;
  for (const TailId id : moved) Add(tails, id);
}

void TailLists::Reindex(const HazardStatistics& statistics) {
  index_.Relearn(statistics);
  filled_.fill(0);
  for (uint32_t cell = 0; cell < kCells; ++cell) Mark(cell);
}

}  // namespace kvasir::eviction
