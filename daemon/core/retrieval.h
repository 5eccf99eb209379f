// Retrieval: the sealed blocks of one sequence, and which of them lie in slots that its engine
// sees.
//
// A block has the rows of all layers, in memory that no engine maps, and behind them, where other
// groups have mass, its representatives: f32 [layer][query_heads * k_dim]. Each layer has an index
// of its own (a representative a block) and slots of its own; a lookup copies what is missing into
// slots. The rules are policies/retrieval's; here are the bytes. Jobs work on it off the lock, one
// at a time; between jobs its owner's lock guards it.
#ifndef KVASIR_DAEMON_CORE_RETRIEVAL_H_
#define KVASIR_DAEMON_CORE_RETRIEVAL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "daemon/core/kept_list.h"
#include "daemon/core/score_job.h"
#include "policies/retrieval/block_cache.h"
#include "policies/retrieval/infllm_config.h"

namespace kvasir::core {

class Retrieval;

// The rows of a new block and their mass, from which its representatives are made.
struct BlockSealing {
  std::shared_ptr<KeptGroup> block;  // filled by the same job, shared with it
  std::vector<HeadShape> layers;
  std::vector<const std::byte*> recent;  // blocks of the engine, from row recent_base on
  const shm::GroupGeometry* recent_geometry = nullptr;
  uint64_t recent_base = 0;
  uint64_t first = 0, last = 0;  // rows
  uint32_t repr_topk = 0;

  absl::Status status;
};

// Writes the representatives into the block. Errors (in status): kInvalidArgument for mass that is
// not finite or below zero, kFailedPrecondition where the engine reported none, naming the layer.
void RunSealing(BlockSealing& sealing);

// One lookup in one layer.
struct BlockLookup {
  Retrieval* retrieval = nullptr;
  uint32_t layer = 0;
  std::vector<float> query;  // [query_heads * k_dim], copied out of the report
  std::vector<float> mass;   // of the blocks of the layer's last lookup; empty: not known

  absl::Status status;
  std::vector<uint32_t> blocks;  // ascending
  std::vector<uint32_t> slots;   // of each
};

// Looks up, makes the blocks resident, and copies what was missing into its slots. Errors (in
// status): the query's and the mass's, naming the layer.
void RunLookup(BlockLookup& lookup);

class Retrieval {
 public:
  // Slot groups come from `slots`, one allocator a layer; all must outlive it. `representatives`:
  // where those of each layer begin, in bytes from a block's mass_off.
  static absl::StatusOr<std::unique_ptr<Retrieval>> Create(
      const InfLlmConfig& config, const std::vector<shm::GroupGeometry>& slot_geometries,
      std::vector<GroupAllocator*> slots, const std::vector<uint64_t>& representatives);
  ~Retrieval();
  Retrieval(const Retrieval&) = delete;
  Retrieval& operator=(const Retrieval&) = delete;

  const InfLlmConfig& config() const { return config_; }
  uint64_t blocks() const { return blocks_.size(); }

  // A sealed block, filled, with its representatives.
  void Add(std::shared_ptr<KeptGroup> block) { blocks_.push_back(std::move(block)); }
  // The job that looked up is done: its blocks are the layer's last ones.
  void Finish(const BlockLookup& lookup);

  // Slots for whatever a lookup in `layer` may select. Errors: kResourceExhausted.
  absl::Status PrepareSlots(uint32_t layer);

  const Group& Slot(uint32_t layer, uint32_t slot) const { return layers_[layer].slots[slot]; }
  const shm::GroupGeometry& SlotGeometry(uint32_t layer) const { return *layers_[layer].geometry; }
  // Blocks of the layer's last lookup, ascending.
  const std::vector<uint32_t>& last(uint32_t layer) const { return layers_[layer].last; }
  const KeptGroup& block(uint32_t index) const { return *blocks_[index]; }

  // Blocks and slots.
  uint64_t held_bytes() const;

 private:
  friend void RunLookup(BlockLookup& lookup);
  struct Layer {
    explicit Layer(BlockCache block_cache) : cache(std::move(block_cache)) {}
    const shm::GroupGeometry* geometry = nullptr;  // of a slot: this layer alone
    GroupAllocator* allocator = nullptr;
    uint64_t repr_off = 0;
    BlockCache cache;
    std::vector<Group> slots;
    std::vector<uint32_t> last;  // written under the owner's lock alone: people ask meanwhile
  };

  explicit Retrieval(const InfLlmConfig& config) : config_(config) {}
  absl::Status Look(BlockLookup& lookup);
  std::vector<kernels::KeyRun> Representatives(uint32_t layer, size_t width) const;
  void Load(uint32_t layer, const BlockSlot& load);

  const InfLlmConfig config_;
  std::vector<Layer> layers_;
  std::vector<shm::GroupGeometry> geometries_;
  std::vector<std::shared_ptr<KeptGroup>> blocks_;  // shared with sealing jobs
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_RETRIEVAL_H_
