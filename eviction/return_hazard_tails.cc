// The tails of return-hazard: how they are made, grow, queue and go.
#include <algorithm>

#include "base/error.h"
#include "eviction/return_hazard.h"

namespace kvasir::eviction {

absl::StatusOr<bool> ReturnHazard::Seal(SequenceId id, const ChainKey& key, bool partial,
                                        int64_t now_us, std::vector<Eviction>& evicted) {
  Sequence* sequence = sequences_.Find(id);
  if (sequence == nullptr) return NotFound("unknown sequence: slot={}", id.slot);
  if (sequence->partial) return FailedPrecondition("the last block is not full: slot={}", id.slot);
  Age(now_us);
  sequence->partial = partial;
  if (sequence->broken) return false;
  BlockId block = index_.Find(key);
  const bool known = block != kNoBlock;
  const bool resident = known && index_[block].resident;
  if ((known && index_[block].parent != sequence->last) || (!resident && !MakeRoom(evicted))) {
    sequence->broken = true;
    return false;
  }
  if (!known) block = index_.Insert(key, sequence->last);
  if (block == kNoBlock) {
    sequence->broken = true;
    return false;
  }
  if (index_[block].refs < kRefsMax) ++index_[block].refs;
  if (known) {
    SealKnown(*sequence, block);
  } else {
    SealNew(*sequence, block, partial ? kPartial : kNew);
  }
  PinLast(*sequence, block);
  RelistTailOf(block);
  DropGhosts();
  return true;
}

// The block stays in the tail where it lies: it may be in the middle of that one.
void ReturnHazard::SealKnown(Sequence& sequence, BlockId block) {
  if (index_[block].resident) return;
  BecomeResident(block);
  Tail& tail = tails_[index_[block].tail];
  ++tail.resident;
  tail.tip = block;
  RelistTailOf(sequence.last);
}

void ReturnHazard::SealNew(Sequence& sequence, BlockId block, TailType type) {
  const BlockId parent = sequence.last;
  const TailId above = index_[parent].tail;
  index_[block].generation = sequence.generation & kGenerationMax;
  ++index_[parent].kids;
  BecomeResident(block);
  // Another sequence may have taken over the block before, and its tail with it.
  if (const Tail* own = FindOwn(sequence, type); own == nullptr || own != &tails_[above]) {
    const TailId made = MakeTail(sequence, type, block);
    if (tails_[above].forgotten) {
      tails_[made].forgotten = true;  // no ghost of it may outlive its parent
    } else {
      InsertOrderBefore(made, above);
    }
  }
  Append(sequence, type, block);
  Relist(above);
}

// The latest one of that type that is still there.
Tail* ReturnHazard::FindOwn(const Sequence& sequence, TailType type) {
  for (size_t i = sequence.tails.size(); i-- > 0;) {
    Tail& tail = tails_[sequence.tails[i].id];
    if (tail.serial == sequence.tails[i].serial && tail.type == type) return &tail;
  }
  return nullptr;
}

TailId ReturnHazard::MakeTail(Sequence& sequence, TailType type, BlockId first) {
  const TailId id = tails_.Take();
  Tail& tail = tails_[id];
  tail.live = true;
  tail.serial = ++next_serial_;
  tail.type = type;
  tail.running = true;
  tail.served_at = sequence.served_at;
  tail.gap = sequence.gap;
  TailFeatures& features = tail.features;
  features.group = static_cast<uint8_t>(2 * type + (sequence.first_turn ? 1 : 0));
  features.count = type == kPartial ? 1 : kFeatures;
  const auto generation = [&](int max) {
    return static_cast<uint8_t>(std::min<int>(max, sequence.generation));
  };
  features.values = {
      0,
      sequence.fresh_level,
      sequence.typed_level,
      static_cast<uint8_t>(std::min<int>(4, index_[first].refs)),
      static_cast<uint8_t>(6 * std::min(3, sequence.fresh_level / 2) + generation(5)),
      generation(9),
      sequence.gap,
      sequence.previous_gap};
  sequence.tails.push_back({id, tail.serial});
  return id;
}

void ReturnHazard::Append(Sequence& sequence, TailType type, BlockId block) {
  Tail* tail = FindOwn(sequence, type);
  if (tail == nullptr) tail = &tails_[MakeTail(sequence, type, block)];
  for (const OwnTail& own : sequence.tails) {
    if (tail->serial == own.serial) index_[block].tail = own.id;
  }
  ++tail->known;
  ++tail->size;
  tail->deep = block;
  if (index_[block].resident) {
    ++tail->resident;
    tail->tip = block;
  }
}

void ReturnHazard::Relist(TailId id) {
  Tail& tail = tails_[id];
  const bool candidate = !tail.running && tail.resident > 0 &&
                         index_[tail.tip].resident_kids == 0 && index_[tail.tip].pins == 0;
  if (candidate && tail.list == TailList::kNone) {
    lists_.Add(tails_, id);
  } else if (!candidate) {
    lists_.Remove(tails_, id);
  }
}

void ReturnHazard::RelistTailOf(BlockId block) {
  if (block != kNoBlock && index_[block].tail != kNoTail) Relist(index_[block].tail);
}

void ReturnHazard::FreeTail(TailId id) {
  Tail& tail = tails_[id];
  lists_.Remove(tails_, id);
  if (!tail.running) timers_.Remove(tails_, id);
  if (!tail.forgotten) RemoveFromOrder(id);
  tail = Tail();
  tails_.Give(id);
}

void ReturnHazard::DropGhosts() {
  const double ghosts_max = options_.ghost_factor * capacity_;
  while (index_.size() - resident_ > ghosts_max && order_front_ != kNoTail) {
    const TailId id = order_front_;
    Tail& tail = tails_[id];
    RemoveFromOrder(id);
    tail.forgotten = true;
    while (tail.known > tail.resident) {
      const BlockId ghost = tail.deep;
      tail.deep = index_[ghost].parent;
      index_.Erase(ghost);
      --tail.known;
    }
    if (tail.known == 0) FreeTail(id);
  }
}

void ReturnHazard::PushOrderBack(TailId id) {
  tails_[id].order_previous = order_back_;
  tails_[id].order_next = kNoTail;
  (order_back_ == kNoTail ? order_front_ : tails_[order_back_].order_next) = id;
  order_back_ = id;
}

void ReturnHazard::InsertOrderBefore(TailId id, TailId before) {
  const TailId previous = tails_[before].order_previous;
  tails_[id].order_previous = previous;
  tails_[id].order_next = before;
  (previous == kNoTail ? order_front_ : tails_[previous].order_next) = id;
  tails_[before].order_previous = id;
}

void ReturnHazard::RemoveFromOrder(TailId id) {
  const Tail& tail = tails_[id];
  (tail.order_previous == kNoTail ? order_front_ : tails_[tail.order_previous].order_next) =
      tail.order_next;
  (tail.order_next == kNoTail ? order_back_ : tails_[tail.order_next].order_previous) =
      tail.order_previous;
}

}  // namespace kvasir::eviction
