#include "index/block_index.h"

#include <utility>

#include "base/check.h"

namespace kvasir {
namespace {

constexpr size_t kSlotsMin = 64;

}  // namespace

BlockIndex::BlockIndex(uint32_t blocks_max) : blocks_max_(blocks_max), slots_(kSlotsMin) {
  KVASIR_CHECK(blocks_max < uint32_t{1} << 31, "blocks_max={}", blocks_max);
}

size_t BlockIndex::SlotOf(const ChainKey& key) const {
  const size_t mask = slots_.size() - 1;
  const uint32_t tag = TagOf(key);
  size_t at = HomeOf(key);
  while (slots_[at].block != kNoBlock &&
         (slots_[at].tag != tag || !(records_[slots_[at].block].key == key))) {
    at = (at + 1) & mask;
  }
  return at;
}

BlockId BlockIndex::Find(const ChainKey& key) const { return slots_[SlotOf(key)].block; }

PrefixMatch BlockIndex::Lookup(std::span<const ChainKey> chain) const {
  PrefixMatch match;
  bool resident = true;
  for (const ChainKey& key : chain) {
    const BlockId block = Find(key);
    if (block == kNoBlock) break;
    ++match.known;
    resident = resident && records_[block].resident;
    if (resident) ++match.resident;
  }
  return match;
}

BlockId BlockIndex::Insert(const ChainKey& key, BlockId parent) {
  if (size() >= blocks_max_) return kNoBlock;
  size_t at = SlotOf(key);
  if (slots_[at].block != kNoBlock) return kNoBlock;
  if ((size_t{size()} + 1) * 4 > slots_.size() * 3) {
    Grow();
    at = SlotOf(key);
  }
  const BlockId block = records_.Take();
  records_[block].key = key;
  records_[block].parent = parent;
  slots_[at] = {TagOf(key), block};
  return block;
}

void BlockIndex::Erase(BlockId block) {
  const size_t mask = slots_.size() - 1;
  size_t hole = SlotOf(records_[block].key);
  KVASIR_CHECK(slots_[hole].block == block, "block={}", block);
  // What was pushed past the hole moves back, so that no probe ends before its key.
  for (size_t at = (hole + 1) & mask; slots_[at].block != kNoBlock; at = (at + 1) & mask) {
    const size_t home = HomeOf(records_[slots_[at].block].key);
    if (((at - home) & mask) >= ((at - hole) & mask)) {
      slots_[hole] = slots_[at];
      hole = at;
    }
  }
  slots_[hole] = Slot();
  records_.Give(block);
}

void BlockIndex::Grow() {
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.size() * 2));
  for (const Slot& slot : old) {
    if (slot.block != kNoBlock) slots_[SlotOf(records_[slot.block].key)] = slot;
  }
}

uint64_t BlockIndex::MetadataBytes() const {
  return slots_.capacity() * sizeof(Slot) + records_.MetadataBytes();
}

}  // namespace kvasir
