// The invariants of return-hazard, recounted from its records.
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "eviction/return_hazard.h"

namespace kvasir::eviction {

absl::Status ReturnHazard::CheckInvariants() const {
  if (resident_ > capacity_) {
    return Internal("resident blocks over capacity: resident={} max={}", resident_, capacity_);
  }
  if (index_.size() - resident_ > options_.ghost_factor * capacity_) {
    return Internal("too many ghosts: ghosts={} max={}", index_.size() - resident_,
                    options_.ghost_factor * capacity_);
  }
  // Places in the queue; forgotten tails stand before all others.
  std::vector<uint64_t> place(tails_.made(), 0);
  uint64_t queued = 0;
  for (TailId id = order_front_; id != kNoTail; id = tails_[id].order_next) {
    if (!tails_[id].live || tails_[id].forgotten) return Internal("queued by mistake: tail={}", id);
    place[id] = ++queued;
  }
  std::vector<uint32_t> known(tails_.made(), 0), resident(tails_.made(), 0);
  std::vector<uint32_t> resident_kids(index_.handles(), 0);
  uint32_t blocks = 0, residents = 0;
  for (BlockId block = 0; block < index_.handles(); ++block) {
    const BlockRecord& record = index_[block];
    if (index_.Find(record.key) != block) continue;  // free
    KVASIR_RETURN_IF_ERROR(CheckBlock(block, place));
    ++blocks;
    ++known[record.tail];
    if (!record.resident) continue;
    ++residents;
    ++resident[record.tail];
    if (record.parent != kNoBlock) ++resident_kids[record.parent];
  }
  if (blocks != index_.size() || residents != resident_) {
    return Internal("counts are wrong: blocks={} expected={} resident={} expected={}", blocks,
                    index_.size(), residents, resident_);
  }
  for (BlockId block = 0; block < index_.handles(); ++block) {
    if (index_.Find(index_[block].key) == block &&
        index_[block].resident_kids != resident_kids[block]) {
      return Internal("resident kids are wrong: block={} resident_kids={} expected={}", block,
                      index_[block].resident_kids, resident_kids[block]);
    }
  }
  uint64_t unforgotten = 0;
  for (TailId id = 0; id < tails_.made(); ++id) {
    if (!tails_[id].live) continue;
    KVASIR_RETURN_IF_ERROR(CheckTail(id, known[id], resident[id]));
    if (!tails_[id].forgotten) ++unforgotten;
  }
  if (queued != unforgotten) {
    return Internal("the queue is wrong: tails={} expected={}", queued, unforgotten);
  }
  return absl::OkStatus();
}

absl::Status ReturnHazard::CheckBlock(BlockId block, const std::vector<uint64_t>& place) const {
  const BlockRecord& record = index_[block];
  if (record.tail >= tails_.made() || !tails_[record.tail].live) {
    return Internal("a block has no tail: block={} tail={}", block, record.tail);
  }
  if (!record.resident && (tails_[record.tail].forgotten || record.pins > 0)) {
    return Internal("a ghost is forgotten or pinned: block={}", block);
  }
  if (record.parent == kNoBlock) return absl::OkStatus();
  const BlockRecord& parent = index_[record.parent];
  if (index_.Find(parent.key) != record.parent) {
    return Internal("the parent is not known: block={} parent={}", block, record.parent);
  }
  if (record.resident && !parent.resident) {
    return Internal("resident under a parent that is not: block={}", block);
  }
  if (place[record.tail] > place[parent.tail]) {
    return Internal("a tail is newer than its parent's: block={}", block);
  }
  return absl::OkStatus();
}

absl::Status ReturnHazard::CheckTail(TailId id, uint32_t known, uint32_t resident) const {
  const Tail& tail = tails_[id];
  if (tail.known != known || tail.resident != resident || known == 0 || known > tail.size) {
    return Internal(
        "a tail's counts are wrong: tail={} known={} expected={} resident={}"
        " expected={} size={}",
        id, tail.known, known, tail.resident, resident, tail.size);
  }
  // Up from the deepest: ghosts first, then the tip.
  BlockId block = tail.deep;
  for (uint32_t i = 0; i < known; ++i, block = index_[block].parent) {
    if (block == kNoBlock || index_[block].tail != id) {
      return Internal("a tail is no path: tail={} block={}", id, block);
    }
    if (index_[block].resident != (i >= known - resident ? 1 : 0) ||
        (i == known - resident && block != tail.tip)) {
      return Internal("a tail's tip is wrong: tail={} tip={}", id, tail.tip);
    }
  }
  const bool candidate = !tail.running && resident > 0 && index_[tail.tip].resident_kids == 0 &&
                         index_[tail.tip].pins == 0;
  const TailList list = candidate ? lists_.ListOf(tail.level, tail.bucket) : TailList::kNone;
  if (tail.list != list) {
    return Internal("a tail is in the wrong list: tail={} list={} expected={}", id,
                    static_cast<int>(tail.list), static_cast<int>(list));
  }
  return absl::OkStatus();
}

}  // namespace kvasir::eviction
