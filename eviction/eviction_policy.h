// Which resident block of a tier goes next: the interface of all eviction policies.
//
// A policy is a pure state machine: time is an argument, there is no I/O, no lock and no
// randomness, and the same calls have the same results. It owns a BlockIndex and decides; the
// caller holds the data and drops what `evicted` names. The life of a sequence:
//
//   Lookup(chain)     which leading blocks are there; no side effect
//   Begin(start)      its prompt's blocks are touched or inserted, and pinned
//   Seal(id, key)     one more block of it is full: inserted behind the others, and pinned
//   Complete(id)      it is idle from now on, and its blocks may be victims
//
// A pinned block is never a victim. Where room cannot be made, a chain is stored up to there.
// Keys come from ChainHasher, so a key implies all of its parents; a chain that contradicts the
// index is stored up to the contradiction and harms nothing.
//
// Times are microseconds on a clock of the caller's; one that goes backwards counts as standing.
// Thread-compatible. Cost: O(1) amortised for a block, beside O(log tails) for each run of blocks
// under return-hazard; no allocation for a block but amortised growth.
#ifndef KVASIR_EVICTION_EVICTION_POLICY_H_
#define KVASIR_EVICTION_EVICTION_POLICY_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "index/block_index.h"

namespace kvasir::eviction {

inline constexpr uint32_t kCapacityMax = uint32_t{1} << 24;  // blocks
inline constexpr uint32_t kChainBlocksMax = uint32_t{1} << 20;

// A running sequence. An old id never names a new sequence.
struct SequenceId {
  uint32_t slot = kNoHandle;
  uint32_t stamp = 0;
};

struct SequenceStart {
  std::span<const ChainKey> chain;  // blocks of the prompt from the root; at most kChainBlocksMax
  bool last_partial = false;        // the last block is not full
  uint32_t tokens = 0;              // of the prompt
  int64_t now_us = 0;
};

struct SequenceEnd {
  uint64_t tokens = 0;       // prompt and answer
  int64_t idle_from_us = 0;  // when it finished
};

struct Admission {
  SequenceId id;
  uint32_t known = 0;        // leading blocks that were known
  uint32_t prefix_hits = 0;  // leading blocks that were resident
  uint32_t block_hits = 0;   // blocks that were resident when their turn came
  uint32_t stored = 0;       // leading blocks that are resident now
};

// Why a block was the victim, in the terms of its policy.
struct EvictionReason {
  const char* list = "";  // the list that gave it up; static text
  uint8_t level = 0;      // return-hazard: its score's level
  uint8_t bucket = 0;     //   its age bucket
  float index = 0;        //   hits per room and time that keeping it was worth
  std::array<uint8_t, 8> features{};
  bool scored = false;  // level, bucket, index and features mean something
};

struct Eviction {
  ChainKey key;
  EvictionReason reason;
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  virtual std::string_view name() const = 0;
  virtual uint32_t capacity() const = 0;
  virtual uint32_t resident() const = 0;
  virtual const BlockIndex& index() const = 0;

  PrefixMatch Lookup(std::span<const ChainKey> chain) const { return index().Lookup(chain); }

  // Appends what was evicted for it to `evicted`, in that order. Errors: kInvalidArgument for a
  // chain that is empty or too long; nothing has changed then.
  virtual absl::StatusOr<Admission> Begin(const SequenceStart& start,
                                          std::vector<Eviction>& evicted) = 0;

  // `key`: behind the last block of the sequence. False where it was not stored, because there was
  // no room or a block before it was not. Errors: kNotFound, kFailedPrecondition behind a partial
  // block.
  virtual absl::StatusOr<bool> Seal(SequenceId id, const ChainKey& key, bool partial,
                                    int64_t now_us, std::vector<Eviction>& evicted) = 0;

  // Errors: kNotFound.
  virtual absl::Status Complete(SequenceId id, const SequenceEnd& end) = 0;

  // Holds the resident blocks of `chain`, which are no victims until Unpin() is given the answer.
  // Unlike Begin() it says nothing of use: no order changes and nothing is learned. Cost: that of
  // Lookup().
  virtual std::vector<ChainKey> Pin(std::span<const ChainKey> chain) = 0;
  virtual void Unpin(std::span<const ChainKey> pinned) = 0;

  // Chooses a victim and drops it; none when every resident block is pinned or has a resident child
  // that is. For callers that take room away: another tenant's need, a smaller budget.
  virtual std::optional<Eviction> EvictOne(int64_t now_us) = 0;

  // What was learned from traffic, in the envelope of learned_state.h; empty for policies that
  // learn nothing but about single keys. It has no keys and tells nothing of content, and an
  // instance of any capacity can go on from it.
  std::string SaveLearned() const;

  // All or nothing; "" restores nothing. Errors: kInvalidArgument or kDataLoss naming the field and
  // its bound.
  absl::Status RestoreLearned(std::string_view bytes);

  // Everything allocated, the index included.
  virtual uint64_t MetadataBytes() const = 0;

 private:
  // What the envelope is put around; nothing: this policy learns nothing.
  virtual std::optional<std::string> SaveBody() const { return std::nullopt; }
  // REQUIRES: SaveBody() has something. Errors: RestoreLearned()'s.
  virtual absl::Status RestoreBody(std::string_view body);
};

// One line for a log: "victim=... list=cell level=9 bucket=14 index=0.0003 features=0,3,...".
std::string Explain(const Eviction& eviction);

// The bounds of SequenceStart. Errors: kInvalidArgument.
absl::Status CheckStart(const SequenceStart& start);

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_EVICTION_POLICY_H_
