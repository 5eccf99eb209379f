// The blocks that a tier knows, by their keys: what a prefix lookup and an eviction policy share.
//
// A flat table from ChainKey to a 32-bit handle, and a record for each handle. Known = in the
// index; a known block whose data is not there is a ghost. The index keeps the records and finds
// them; eviction/ says what their fields are at any time.
//
// Thread-compatible: const calls change nothing and may run at once. Cost: a call is O(1) for a
// key; no allocation but the growth of table (doubled) and records (by chunks). Keys are outputs of
// a keyed hash (chain_hasher.h), so their own bits spread them: nobody can choose colliding ones.
#ifndef KVASIR_INDEX_BLOCK_INDEX_H_
#define KVASIR_INDEX_BLOCK_INDEX_H_

#include <cstdint>
#include <span>
#include <vector>

#include "index/chain_key.h"
#include "index/slab.h"

namespace kvasir {

using BlockId = uint32_t;
inline constexpr BlockId kNoBlock = kNoHandle;

struct BlockRecord {
  ChainKey key;
  BlockId parent = kNoBlock;     // the root's: none
  uint32_t tail = kNoHandle;     // what the policy files the block under
  uint32_t kids = 0;             // children that were ever made
  uint32_t resident_kids = 0;    // children that are resident now
  uint32_t pins = 0;             // running sequences and others that hold the block
  uint16_t refs = 0;             // sequences that used it, saturating
  uint16_t generation : 15 = 0;  // turns before the one that made it, saturating
  uint16_t resident : 1 = 0;
};
static_assert(sizeof(BlockRecord) == 40);

inline constexpr uint16_t kRefsMax = 65535;
inline constexpr uint16_t kGenerationMax = 32767;

// Leading blocks of a chain that are known, and that are resident. Residency is not always closed
// under parents, so `resident` counts up to the first block that is not.
struct PrefixMatch {
  uint32_t known = 0;
  uint32_t resident = 0;
  friend bool operator==(const PrefixMatch&, const PrefixMatch&) = default;
};

class BlockIndex {
 public:
  // Holds at most `blocks_max` blocks. REQUIRES: blocks_max < 2^31.
  explicit BlockIndex(uint32_t blocks_max);

  // kNoBlock when not known.
  BlockId Find(const ChainKey& key) const;

  // No side effect. `chain`: keys from the root on.
  PrefixMatch Lookup(std::span<const ChainKey> chain) const;

  // A new record that is not resident; kNoBlock when the key is known or the index is full.
  BlockId Insert(const ChainKey& key, BlockId parent);

  // REQUIRES: known. The handle may be given out again.
  void Erase(BlockId block);

  BlockRecord& operator[](BlockId block) { return records_[block]; }
  const BlockRecord& operator[](BlockId block) const { return records_[block]; }

  uint32_t size() const { return records_.taken(); }
  // Handles so far lie below; for arrays beside the records.
  uint32_t handles() const { return records_.made(); }
  uint64_t MetadataBytes() const;

 private:
  struct Slot {
    uint32_t tag = 0;  // high bits of the key: most other keys are told apart without their records
    BlockId block = kNoBlock;
  };

  static uint32_t TagOf(const ChainKey& key) { return static_cast<uint32_t>(key.high >> 32); }
  size_t HomeOf(const ChainKey& key) const { return key.low & (slots_.size() - 1); }
  // Where the key lies, or the free slot that ends its probe.
  size_t SlotOf(const ChainKey& key) const;
  void Grow();

  uint32_t blocks_max_;
  std::vector<Slot> slots_;  // a power of two, linear probing, at most three quarters full
  Slab<BlockRecord, &BlockRecord::parent> records_;
};

}  // namespace kvasir

#endif  // KVASIR_INDEX_BLOCK_INDEX_H_
