#include "daemon/core/retrieval.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/gather.h"
#include "kernels/row_convert.h"
#include "policies/retrieval/infllm_index.h"

namespace kvasir::core {
namespace {

// The block's keys in one layer, where the engine wrote them.
std::vector<kernels::KeyRun> KeysOf(const BlockSealing& s, size_t layer) {
  std::vector<kernels::KeyRun> runs;
  const shm::GroupGeometry& geometry = *s.recent_geometry;
  const uint32_t bytes = geometry.row_bytes[layer].k;
  for (uint64_t row = s.first; row < s.last;) {
    const uint64_t at = row - s.recent_base;
    const uint64_t slot = at % geometry.slots;
    const uint64_t rows = std::min<uint64_t>(s.last - row, geometry.slots - slot);
    runs.push_back({s.recent[at / geometry.slots] + geometry.k_off[layer] + slot * bytes, bytes,
                    static_cast<uint32_t>(rows)});
    row += rows;
  }
  return runs;
}

// [query_head][row of the block], copied once.
std::vector<float> MassOf(const BlockSealing& s, uint32_t first_set, uint32_t heads) {
  const shm::GroupGeometry& geometry = *s.recent_geometry;
  const uint64_t rows = s.last - s.first;
  std::vector<float> mass(heads * rows);
  for (uint32_t head = 0; head < heads; ++head) {
    for (uint64_t i = 0; i < rows; ++i) {
      const uint64_t at = s.first + i - s.recent_base;
      const uint64_t slot = uint64_t{first_set + head} * geometry.slots + at % geometry.slots;
      std::memcpy(&mass[head * rows + i],
                  s.recent[at / geometry.slots] + geometry.mass_off + 4 * slot, 4);
    }
  }
  return mass;
}

}  // namespace

void RunSealing(BlockSealing& s) {
  uint32_t set = 0;
  for (size_t layer = 0; layer < s.layers.size(); ++layer) {
    const HeadShape& heads = s.layers[layer];
    absl::StatusOr<std::vector<float>> representative =
        BlockRepresentative({heads.type, heads.kv_heads, heads.k_dim}, heads.query_heads,
                            KeysOf(s, layer), MassOf(s, set, heads.query_heads), s.repr_topk);
    if (!representative.ok()) {
      s.status = MakeError(representative.status().code(),
                           fmt::format("a block cannot be sealed: first_row={} layer={}: {}",
                                       s.first, layer, MessageOf(representative.status())));
      return;
    }
    s.representatives.push_back(*std::move(representative));
    set += heads.query_heads;
  }
}

void RunLookup(BlockLookup& lookup) { lookup.status = lookup.retrieval->Look(lookup); }

absl::StatusOr<std::unique_ptr<Retrieval>> Retrieval::Create(
    const InfLlmConfig& config, const std::vector<shm::GroupGeometry>& slot_geometries,
    std::vector<GroupAllocator*> slots) {
  std::unique_ptr<Retrieval> retrieval(new Retrieval(config));
  retrieval->geometries_ = slot_geometries;
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    KVASIR_ASSIGN_OR_RETURN(BlockCache cache, BlockCache::Create(config));
    Layer& made = retrieval->layers_.emplace_back(std::move(cache));
    made.geometry = &retrieval->geometries_[layer];
    made.allocator = slots[layer];
  }
  return retrieval;
}

Retrieval::~Retrieval() {
  for (Layer& layer : layers_) {
    for (const Group& slot : layer.slots) layer.allocator->Free(slot);
  }
}

void Retrieval::Add(std::shared_ptr<KeptGroup> block,
                    std::vector<std::vector<float>> representatives) {
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    std::vector<float>& all = layers_[layer].representatives;
    all.insert(all.end(), representatives[layer].begin(), representatives[layer].end());
  }
  blocks_.push_back(std::move(block));
}

absl::Status Retrieval::PrepareSlots(uint32_t layer) {
  Layer& at = layers_[layer];
  const uint64_t wanted = std::min<uint64_t>(config_.max_cached_block, blocks_.size());
  while (at.slots.size() < wanted) {
    KVASIR_ASSIGN_OR_RETURN(const Group slot, at.allocator->Allocate());
    at.slots.push_back(slot);
  }
  return absl::OkStatus();
}

absl::Status Retrieval::Look(BlockLookup& lookup) {
  Layer& layer = layers_[lookup.layer];
  if (!lookup.mass.empty()) {
    KVASIR_RETURN_IF_ERROR(layer.cache.Update(layer.last, lookup.mass));
  }
  KVASIR_ASSIGN_OR_RETURN(lookup.blocks,
                          LookupBlocks(layer.representatives, lookup.query, config_.topk));
  KVASIR_ASSIGN_OR_RETURN(const BlockCacheStep step, layer.cache.Select(lookup.blocks));
  for (const BlockSlot& load : step.loads) Load(lookup.layer, load);
  layer.last = lookup.blocks;
  return absl::OkStatus();
}

void Retrieval::Load(uint32_t layer, const BlockSlot& load) {
  const Layer& at = layers_[layer];
  const KeptGroup& block = *blocks_[load.block];
  const shm::GroupGeometry& from = block.geometry();
  KVASIR_CHECK(load.slot < at.slots.size(), "slot={} slots={}", load.slot, at.slots.size());
  std::byte* const to = at.slots[load.slot].data();
  const shm::LayerRowBytes bytes = from.row_bytes[layer];
  std::memcpy(to + at.geometry->k_off[0], block.group().data() + from.k_off[layer],
              uint64_t{bytes.k} * from.slots);
  std::memcpy(to + at.geometry->v_off[0], block.group().data() + from.v_off[layer],
              uint64_t{bytes.v} * from.slots);
  std::memcpy(to + at.geometry->pos_off, block.group().data() + from.pos_off,
              uint64_t{4} * from.slots);
  std::memcpy(to + at.geometry->tok_off, block.group().data() + from.tok_off,
              uint64_t{4} * from.slots);
}

const Group& Retrieval::SlotOf(uint32_t layer, uint32_t block) const {
  const std::optional<uint32_t> slot = layers_[layer].cache.SlotOf(block);
  KVASIR_CHECK(slot.has_value(), "block is in no slot: block={}", block);
  return layers_[layer].slots[*slot];
}

uint64_t Retrieval::held_bytes() const {
  uint64_t bytes = 0;
  for (const std::shared_ptr<KeptGroup>& block : blocks_) bytes += block->geometry().bytes;
  for (const Layer& layer : layers_) bytes += layer.slots.size() * layer.geometry->bytes;
  return bytes;
}

}  // namespace kvasir::core
