// The fixed policies' common half: they see single blocks, in root-to-leaf order, and nothing else.
//
// A fixed policy says what a hit and a miss do to its lists; index, pins, sequences and counts are
// here. Residency need not be closed under parents: a lookup uses leading resident blocks only.
// Thread-compatible.
#ifndef KVASIR_EVICTION_BLOCKWISE_POLICY_H_
#define KVASIR_EVICTION_BLOCKWISE_POLICY_H_

#include <optional>
#include <string_view>
#include <vector>

#include "eviction/block_lists.h"
#include "eviction/eviction_policy.h"
#include "eviction/sequence_table.h"

namespace kvasir::eviction {

class BlockwisePolicy : public EvictionPolicy {
 public:
  // `ghosts_max`: blocks that it remembers without data. `pin` false: as textbooks have it, a
  // running sequence's own blocks may be its victims. REQUIRES: capacity in 1..kCapacityMax.
  BlockwisePolicy(uint32_t capacity, uint32_t ghosts_max, bool pin);

  uint32_t capacity() const final { return capacity_; }
  uint32_t resident() const final { return resident_; }
  const BlockIndex& index() const final { return index_; }
  absl::StatusOr<Admission> Begin(const SequenceStart& start, std::vector<Eviction>& evicted) final;
  absl::StatusOr<bool> Seal(SequenceId id, const ChainKey& key, bool partial, int64_t now_us,
                            std::vector<Eviction>& evicted) final;
  absl::Status Complete(SequenceId id, const SequenceEnd& end) final;
  std::vector<ChainKey> Pin(std::span<const ChainKey> chain) final;
  void Unpin(std::span<const ChainKey> pinned) final;
  std::optional<Eviction> EvictOne(int64_t now_us) final;
  uint64_t MetadataBytes() const override;

 protected:
  // A resident block is used.
  virtual void Hit(BlockId block) = 0;
  // A block that is not resident is used: makes room where there is none, by Evict(), and files
  // the block. `ghost`: it was known, and still lies where it did. Returns whether there is room.
  virtual bool Miss(BlockId block, bool ghost) = 0;
  // Drops one block by the policy's rule for a tier that is full; false when all are pinned.
  virtual bool DropOne() = 0;

  // For the hooks. The data of `block` goes; `list` names where it lay.
  void Evict(BlockId block, const char* list);
  // A ghost is forgotten.
  void Forget(BlockId block) { index_.Erase(block); }
  bool Pinned(BlockId block) const { return index_[block].pins > 0; }
  bool Full() const { return resident_ >= capacity_; }
  // The first block of `list` that is not pinned; kNoBlock: none. Cost: O(pinned before it).
  BlockId FirstFree(const BlockList& list) const;
  const BlockIndex& blocks() const { return index_; }
  BlockLinks& links() { return links_; }

 private:
  struct Sequence {
    std::vector<BlockId> pinned;
    bool broken = false;   // some block before is not stored
    bool partial = false;  // the last block is not full
  };

  // Returns whether it was resident; *stored: it is now.
  bool Access(const ChainKey& key, Sequence& sequence, bool* stored);

  uint32_t capacity_;
  bool pin_;
  uint32_t resident_ = 0;
  BlockIndex index_;
  BlockLinks links_;
  SequenceTable<Sequence> sequences_;
  std::vector<Eviction>* evicted_ = nullptr;  // of the running call
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_BLOCKWISE_POLICY_H_
