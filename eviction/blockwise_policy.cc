#include "eviction/blockwise_policy.h"

#include "base/check.h"
#include "base/error.h"

namespace kvasir::eviction {

BlockwisePolicy::BlockwisePolicy(uint32_t capacity, uint32_t ghosts_max, bool pin)
    : capacity_(capacity), pin_(pin), index_(capacity + ghosts_max + 1) {
  KVASIR_CHECK(capacity >= 1 && capacity <= kCapacityMax, "capacity={}", capacity);
}

absl::StatusOr<Admission> BlockwisePolicy::Begin(const SequenceStart& start,
                                                 std::vector<Eviction>& evicted) {
  if (absl::Status status = CheckStart(start); !status.ok()) return status;
  evicted_ = &evicted;
  Admission admission;
  const PrefixMatch match = Lookup(start.chain);
  admission.known = match.known;
  admission.prefix_hits = match.resident;
  admission.id = sequences_.Open();
  Sequence& sequence = *sequences_.Find(admission.id);
  sequence.pinned.clear();
  sequence.broken = false;
  sequence.partial = start.last_partial;
  for (const ChainKey& key : start.chain) {
    bool stored = false;
    if (Access(key, sequence, &stored)) ++admission.block_hits;
    if (!stored) sequence.broken = true;
    if (!sequence.broken) ++admission.stored;
  }
  return admission;
}

absl::StatusOr<bool> BlockwisePolicy::Seal(SequenceId id, const ChainKey& key, bool partial,
                                           int64_t, std::vector<Eviction>& evicted) {
  Sequence* sequence = sequences_.Find(id);
  if (sequence == nullptr) return NotFound("unknown sequence: slot={}", id.slot);
  if (sequence->partial) return FailedPrecondition("the last block is not full: slot={}", id.slot);
  sequence->partial = partial;
  if (sequence->broken) return false;
  evicted_ = &evicted;
  bool stored = false;
  Access(key, *sequence, &stored);
  sequence->broken = !stored;
  return stored;
}

absl::Status BlockwisePolicy::Complete(SequenceId id, const SequenceEnd&) {
  Sequence* sequence = sequences_.Find(id);
  if (sequence == nullptr) return NotFound("unknown sequence: slot={}", id.slot);
  for (const BlockId block : sequence->pinned) --index_[block].pins;
  sequences_.Close(id);
  return absl::OkStatus();
}

std::vector<ChainKey> BlockwisePolicy::Pin(std::span<const ChainKey> chain) {
  std::vector<ChainKey> pinned;
  for (const ChainKey& key : chain) {
    const BlockId block = index_.Find(key);
    if (block == kNoBlock || !index_[block].resident) continue;
    ++index_[block].pins;
    pinned.push_back(key);
  }
  return pinned;
}

void BlockwisePolicy::Unpin(std::span<const ChainKey> pinned) {
  for (const ChainKey& key : pinned) --index_[index_.Find(key)].pins;
}

std::optional<Eviction> BlockwisePolicy::EvictOne(int64_t) {
  std::vector<Eviction> one;
  evicted_ = &one;
  if (resident_ == 0 || !DropOne()) return std::nullopt;
  return one.front();
}

bool BlockwisePolicy::Access(const ChainKey& key, Sequence& sequence, bool* stored) {
  BlockId block = index_.Find(key);
  const bool hit = block != kNoBlock && index_[block].resident;
  *stored = true;
  if (hit) {
    Hit(block);
  } else {
    const bool ghost = block != kNoBlock;
    if (!ghost) block = index_.Insert(key, kNoBlock);
    KVASIR_CHECK(block != kNoBlock, "blocks={}", index_.size());
    if (!Miss(block, ghost)) {
      if (!ghost) index_.Erase(block);
      *stored = false;
      return false;
    }
    index_[block].resident = 1;
    ++resident_;
  }
  if (pin_) {
    ++index_[block].pins;
    sequence.pinned.push_back(block);
  }
  return hit;
}

void BlockwisePolicy::Evict(BlockId block, const char* list) {
  EvictionReason reason;
  reason.list = list;
  evicted_->push_back({index_[block].key, reason});
  index_[block].resident = 0;
  --resident_;
}

BlockId BlockwisePolicy::FirstFree(const BlockList& list) const {
  BlockId block = list.front;
  while (block != kNoBlock && Pinned(block)) block = links_.NextOf(block);
  return block;
}

uint64_t BlockwisePolicy::MetadataBytes() const {
  return index_.MetadataBytes() + links_.MetadataBytes() + sequences_.MetadataBytes();
}

}  // namespace kvasir::eviction
