// Evicts what is expected back latest for the room it takes, and learns that from the traffic.
//
// What is known of a block: its chain, who extended it, how much was new, how often it came back
// and after how long. A request's blocks form up to four tails (tail.h); a tail's features give a
// score, score and age give a cell, and cells are ordered by what keeping is worth (cell_index.h).
// Learning is online (hazard_statistics.h); without anything learned it acts about like LRU.
//
// Residency is closed under parents: only blocks without resident children are victims, so every
// resident block can be hit. Evicted blocks stay known as ghosts, up to ghost_factor times the
// capacity, oldest tail first; what returns to a ghost is learned from as any other return.
//
// A block that a running sequence took over stays with it: its tails are no candidates, are not
// observed and do not age before Complete(). The deepest block of a running sequence is pinned, and
// all others stand above it.
//
// Invariants, checked by CheckInvariants(): counts of tails and records are right; resident <=
// capacity; ghosts <= ghost_factor x capacity; a tail is listed if and only if it has a resident
// block, its tip has no resident child and no pin, and it does not run; a block's tail is never
// newer in the queue than its parent's, so no ghost outlives its parent.
//
// Pure, as eviction_policy.h says. Thread-compatible. Cost: O(1) for a block, O(log tails) for a
// tail; every 50 sequences one relearning of some 20 us. No allocation for a block or a tail but
// chunks of 1,024.
#ifndef KVASIR_EVICTION_RETURN_HAZARD_H_
#define KVASIR_EVICTION_RETURN_HAZARD_H_

#include <memory>
#include <vector>

#include "eviction/age_queue.h"
#include "eviction/eviction_policy.h"
#include "eviction/return_hazard_options.h"
#include "eviction/sequence_table.h"
#include "eviction/tail_lists.h"

namespace kvasir::eviction {

class ReturnHazard final : public EvictionPolicy {
 public:
  // Errors: kInvalidArgument naming the option and its bounds.
  static absl::StatusOr<std::unique_ptr<ReturnHazard>> Make(uint32_t capacity,
                                                            const ReturnHazardOptions& options);

  std::string_view name() const override { return "return-hazard"; }
  uint32_t capacity() const override { return capacity_; }
  uint32_t resident() const override { return resident_; }
  const BlockIndex& index() const override { return index_; }
  absl::StatusOr<Admission> Begin(const SequenceStart& start,
                                  std::vector<Eviction>& evicted) override;
  absl::StatusOr<bool> Seal(SequenceId id, const ChainKey& key, bool partial, int64_t now_us,
                            std::vector<Eviction>& evicted) override;
  absl::Status Complete(SequenceId id, const SequenceEnd& end) override;
  std::vector<ChainKey> Pin(std::span<const ChainKey> chain) override;
  void Unpin(std::span<const ChainKey> pinned) override;
  std::optional<Eviction> EvictOne(int64_t now_us) override;
  uint64_t MetadataBytes() const override;

  // O(blocks); for tests. Errors: kInternal naming the invariant.
  absl::Status CheckInvariants() const;

 private:
  // How far the next relearning is, then HazardStatistics.
  std::optional<std::string> SaveBody() const override;
  absl::Status RestoreBody(std::string_view body) override;

  struct OwnTail {
    TailId id = kNoTail;
    uint64_t serial = 0;
  };
  // A running sequence, and what its tails' features are made of.
  struct Sequence {
    std::vector<OwnTail> tails;  // in the order in which they were made
    BlockId last = kNoBlock;     // deepest stored block, pinned
    bool broken = false;         // a block of the chain is not stored: nothing behind it is
    bool partial = false;        // the last block is not full
    bool first_turn = false;
    uint16_t generation = 0;
    uint8_t gap = 0, previous_gap = 0;
    uint8_t fresh_level = 0, typed_level = 0;
    int64_t served_at = 0;
  };

  ReturnHazard(uint32_t capacity, const ReturnHazardOptions& options);

  // The clock; tails whose age passed an edge move to the next bucket.
  void Age(int64_t now_us);

  // --- Begin() in its parts ---
  void FindPath(std::span<const ChainKey> chain);
  int64_t TrunkOf() const;  // index in path_, -1: none
  void Describe(const SequenceStart& start, int64_t trunk, Sequence& sequence);
  void DetachPath();
  void StoreChain(const SequenceStart& start, int64_t trunk, Sequence& sequence,
                  Admission& admission);
  void KeepRestAsGhosts(size_t from, int64_t trunk, Sequence& sequence);

  // Room for one block. False when nothing can go.
  bool MakeRoom(std::vector<Eviction>& evicted);
  bool DropFirst(std::vector<Eviction>& evicted);
  void BecomeResident(BlockId block);
  // Behind the others of the sequence's tail of that type, which is made on first use.
  void Append(Sequence& sequence, TailType type, BlockId block);
  TailId MakeTail(Sequence& sequence, TailType type, BlockId first);
  Tail* FindOwn(const Sequence& sequence, TailType type);
  void SealKnown(Sequence& sequence, BlockId block);
  void SealNew(Sequence& sequence, BlockId block, TailType type);
  void PinLast(Sequence& sequence, BlockId block);

  // Lists the tail or takes it off, as the invariant says.
  void Relist(TailId id);
  void RelistTailOf(BlockId block);
  void FreeTail(TailId id);
  void DropGhosts();
  void PushOrderBack(TailId id);
  void InsertOrderBefore(TailId id, TailId before);
  void RemoveFromOrder(TailId id);

  absl::Status CheckBlock(BlockId block, const std::vector<uint64_t>& place) const;
  absl::Status CheckTail(TailId id, uint32_t known, uint32_t resident) const;

  const ReturnHazardOptions options_;
  const uint32_t capacity_;
  uint32_t resident_ = 0;
  int64_t now_ = 0;
  uint64_t completed_ = 0;
  uint64_t next_serial_ = 0;
  BlockIndex index_;
  Tails tails_;
  TailLists lists_;
  AgeQueue timers_;
  TailId order_front_ = kNoTail, order_back_ = kNoTail;
  HazardStatistics statistics_;
  SequenceTable<Sequence> sequences_;
  std::vector<BlockId> path_;  // known leading blocks of the chain that begins
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_RETURN_HAZARD_H_
