#include "daemon/core/retrieval.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>
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

// Mass that a sealing can rely on.
absl::Status CheckMass(std::span<const float> mass) {
  for (size_t i = 0; i < mass.size(); ++i) {
    if (!(mass[i] >= 0.0F) || !std::isfinite(mass[i])) {
      return InvalidArgument("mass must be finite and not negative: index={} mass={}", i, mass[i]);
    }
  }
  // Each row attends at least to itself.
  if (std::all_of(mass.begin(), mass.end(), [](float each) { return each == 0; })) {
    return FailedPrecondition("no attention mass was reported: rows_of_heads={}", mass.size());
  }
  return absl::OkStatus();
}

absl::Status SealLayer(const BlockSealing& s, size_t layer, uint32_t first_set, std::byte* to) {
  const HeadShape& heads = s.layers[layer];
  KVASIR_RETURN_IF_ERROR(CheckScoreCount(heads.query_heads, s.last - s.first));
  const std::vector<float> mass = MassOf(s, first_set, heads.query_heads);
  KVASIR_RETURN_IF_ERROR(CheckMass(mass));
  KVASIR_ASSIGN_OR_RETURN(
      const std::vector<float> representative,
      BlockRepresentative({heads.type, heads.kv_heads, heads.k_dim}, heads.query_heads,
                          KeysOf(s, layer), mass, s.repr_topk));
  std::memcpy(to, representative.data(), representative.size() * sizeof(float));
  return absl::OkStatus();
}

}  // namespace

void RunSealing(BlockSealing& s) {
  uint32_t set = 0;
  std::byte* to = s.block->group().data() + s.block->geometry().mass_off;
  for (size_t layer = 0; layer < s.layers.size(); ++layer) {
    const HeadShape& heads = s.layers[layer];
    const absl::Status sealed = SealLayer(s, layer, set, to);
    if (!sealed.ok()) {
      s.status = MakeError(
          sealed.code(), fmt::format("a block cannot be sealed: first_row={} layer={}: {}", s.first,
                                     layer, MessageOf(sealed)));
      return;
    }
    set += heads.query_heads;
    to += sizeof(float) * heads.query_heads * heads.k_dim;
  }
}

void RunLookup(BlockLookup& lookup) {
  const absl::Status found = lookup.retrieval->Look(lookup);
  if (found.ok()) return;
  lookup.status = MakeError(found.code(), fmt::format("blocks cannot be looked up: layer={}: {}",
                                                      lookup.layer, MessageOf(found)));
}

absl::StatusOr<std::unique_ptr<Retrieval>> Retrieval::Create(
    const InfLlmConfig& config, const std::vector<shm::GroupGeometry>& slot_geometries,
    std::vector<GroupAllocator*> slots, const std::vector<uint64_t>& representatives) {
  std::unique_ptr<Retrieval> retrieval(new Retrieval(config));
  retrieval->geometries_ = slot_geometries;
  for (size_t layer = 0; layer < slots.size(); ++layer) {
    KVASIR_ASSIGN_OR_RETURN(BlockCache cache, BlockCache::Create(config));
    Layer& made = retrieval->layers_.emplace_back(std::move(cache));
    made.geometry = &retrieval->geometries_[layer];
    made.allocator = slots[layer];
    made.repr_off = representatives[layer];
  }
  return retrieval;
}

Retrieval::~Retrieval() {
  for (Layer& layer : layers_) {
    for (const Group& slot : layer.slots) layer.allocator->Free(slot);
  }
}

void Retrieval::Finish(const BlockLookup& lookup) {
  if (lookup.status.ok()) layers_[lookup.layer].last = lookup.blocks;
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
  // First what may be refused for its query: then nothing has changed.
  KVASIR_ASSIGN_OR_RETURN(
      lookup.blocks,
      LookupBlocks(Representatives(lookup.layer, lookup.query.size()), lookup.query, config_.topk));
  if (!lookup.mass.empty()) {
    KVASIR_RETURN_IF_ERROR(layer.cache.Update(layer.last, lookup.mass));
  }
  KVASIR_ASSIGN_OR_RETURN(const BlockCacheStep step, layer.cache.Select(lookup.blocks));
  for (const BlockSlot& load : step.loads) Load(lookup.layer, load);
  const std::vector<std::optional<uint32_t>> in_slots = layer.cache.Slots();
  std::unordered_map<uint32_t, uint32_t> slot_of;
  for (uint32_t slot = 0; slot < in_slots.size(); ++slot) {
    if (in_slots[slot]) slot_of.emplace(*in_slots[slot], slot);
  }
  for (const uint32_t block : lookup.blocks) lookup.slots.push_back(slot_of.at(block));
  return absl::OkStatus();
}

std::vector<kernels::KeyRun> Retrieval::Representatives(uint32_t layer, size_t width) const {
  std::vector<kernels::KeyRun> runs;
  runs.reserve(blocks_.size());
  for (const std::shared_ptr<KeptGroup>& block : blocks_) {
    runs.push_back({block->group().data() + block->geometry().mass_off + layers_[layer].repr_off,
                    static_cast<uint32_t>(sizeof(float) * width), 1});
  }
  return runs;
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

uint64_t Retrieval::held_bytes() const {
  uint64_t bytes = 0;  // all blocks are of one geometry
  if (!blocks_.empty()) bytes = blocks_.size() * blocks_.front()->geometry().bytes;
  for (const Layer& layer : layers_) bytes += layer.slots.size() * layer.geometry->bytes;
  return bytes;
}

}  // namespace kvasir::core
