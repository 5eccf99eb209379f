// FarBlocks: what retrieval needs to know of one sequence from step to step: the blocks that each
// layer's queries were given, and the attention that these drew.
#ifndef KVASIR_ENGINE_FAR_BLOCKS_H_
#define KVASIR_ENGINE_FAR_BLOCKS_H_

#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/statusor.h>

#include "client/view.h"
#include "engine/kv_store.h"

namespace kvasir::engine {

// Serves the sequence of one store, for as long as that lives. Retrieve() by one thread at a time;
// totals of different blocks may be added to by different threads. Memory: a float a block.
class FarBlocks {
 public:
  // `store` must outlive this.
  FarBlocks(KvStore& store, uint32_t layers) : store_(store), totals_(layers) {}

  // Tells the store what the layer's last blocks drew and asks it for the next ones, see
  // KvStore::Retrieve(). Errors: the store's; the layer has no blocks then.
  absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t layer,
                                                        std::span<const float> query) {
    std::vector<float>& totals = totals_[layer];
    absl::StatusOr<std::span<const KeptRunView>> blocks = store_.Retrieve(layer, query, totals);
    totals.assign(blocks.ok() ? blocks->size() : 0, 0.0F);
    return blocks;
  }

  // Attention mass of each of the layer's blocks, summed over query heads, queries and rows; zeros
  // after Retrieve().
  std::span<float> totals(uint32_t layer) { return totals_[layer]; }

 private:
  KvStore& store_;
  std::vector<std::vector<float>> totals_;  // [layer][block]
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_FAR_BLOCKS_H_
