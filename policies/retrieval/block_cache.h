// Which sealed blocks lie in which slots of the engine's memory, for one layer of one sequence.
//
// A step selects blocks; those that are in no slot are loaded, and as many cached ones give way as
// there is no room for: the lowest score first, the one that came first on a tie, never a selected
// one. A block stays in its slot while it is cached. Scores: lru, the step of the last use; lru-s,
// the attention mass that the block drew, times score_decay at each step. Source: CudaCache of
// arXiv 2402.04617, context_manager.py. The authors load in the order of the lookup's scores, we in
// that of the block numbers; eviction breaks ties by that order.
#ifndef KVASIR_POLICIES_RETRIEVAL_BLOCK_CACHE_H_
#define KVASIR_POLICIES_RETRIEVAL_BLOCK_CACHE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "policies/retrieval/infllm_config.h"

namespace kvasir {

struct BlockSlot {
  uint32_t block = 0;
  uint32_t slot = 0;
  bool operator==(const BlockSlot&) const = default;
};

// The whole state of a cache, as a snapshot holds it.
struct BlockCacheState {
  struct Entry {
    BlockSlot at;
    double score = 0;
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> entries;  // in the order in which the blocks came
  uint64_t step = 0;
  bool operator==(const BlockCacheState&) const = default;
};

struct BlockCacheStep {
  std::vector<BlockSlot> evicts;  // in the order of the choice; done before the loads
  std::vector<BlockSlot> loads;   // ascending blocks, into the lowest free slots
};

// Copyable value; not thread-safe. O(slots) memory.
class BlockCache {
 public:
  // `state`: of a snapshot. Errors: those of CheckInfLlmConfig, and kInvalidArgument for a state
  // that breaks a rule: a block or slot twice, a slot outside, more entries than slots, a score
  // that is not finite or below 0, a last use (lru) later than the step.
  static absl::StatusOr<BlockCache> Create(const InfLlmConfig& config, BlockCacheState state = {});

  // Makes the blocks resident, at most max_cached_block of them, strictly ascending. Errors:
  // kInvalidArgument; nothing has changed then. Cost: O(slots * log slots).
  absl::StatusOr<BlockCacheStep> Select(std::span<const uint32_t> blocks);

  // What the step's attention gave each of the selected blocks: mass summed over heads, queries and
  // rows. lru-s counts it, lru only checks it. Errors: kInvalidArgument for sizes that differ, a
  // block that is not cached, blocks that do not ascend, a mass that is not finite or below 0;
  // nothing has changed then.
  absl::Status Update(std::span<const uint32_t> blocks, std::span<const float> mass);

  std::optional<uint32_t> SlotOf(uint32_t block) const;
  // Block in each slot.
  std::vector<std::optional<uint32_t>> Slots() const;
  const BlockCacheState& state() const { return state_; }

 private:
  std::vector<uint32_t> Cached() const;  // blocks, ascending
  BlockCache(const InfLlmConfig& config, BlockCacheState state)
      : config_(config), state_(std::move(state)) {}

  std::vector<BlockSlot> Evict(std::span<const uint32_t> selected, uint64_t count);
  void Touch(std::span<const uint32_t> blocks);

  InfLlmConfig config_;
  BlockCacheState state_;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_RETRIEVAL_BLOCK_CACHE_H_
