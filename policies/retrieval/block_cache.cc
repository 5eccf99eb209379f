#include "policies/retrieval/block_cache.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

using Entry = BlockCacheState::Entry;

bool HasTwice(std::vector<uint32_t> values) {
  std::sort(values.begin(), values.end());
  return std::adjacent_find(values.begin(), values.end()) != values.end();
}

bool IsScore(double score) { return std::isfinite(score) && score >= 0.0; }

absl::Status CheckAscending(std::span<const uint32_t> blocks, uint64_t max) {
  if (blocks.size() > max) {
    return InvalidArgument("more blocks than slots: blocks={} max_cached_block={}", blocks.size(),
                           max);
  }
  for (size_t i = 1; i < blocks.size(); ++i) {
    if (blocks[i] <= blocks[i - 1]) {
      return InvalidArgument("blocks must ascend: index={} block={} previous={}", i, blocks[i],
                             blocks[i - 1]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BlockCache> BlockCache::Create(const InfLlmConfig& config, BlockCacheState state) {
  KVASIR_RETURN_IF_ERROR(CheckInfLlmConfig(config));
  if (state.entries.size() > config.max_cached_block) {
    return InvalidArgument("more entries than slots: entries={} max_cached_block={}",
                           state.entries.size(), config.max_cached_block);
  }
  std::vector<uint32_t> blocks;
  std::vector<uint32_t> slots;
  for (const Entry& entry : state.entries) {
    if (entry.at.slot >= config.max_cached_block) {
      return InvalidArgument("slot out of bounds: slot={} max={}", entry.at.slot,
                             config.max_cached_block - 1);
    }
    if (!IsScore(entry.score)) {
      return InvalidArgument("score must be finite and not negative: block={} score={}",
                             entry.at.block, entry.score);
    }
    if (config.cache_strategy == CacheStrategy::kLru &&
        entry.score > static_cast<double>(state.step)) {
      return InvalidArgument("last use lies in the future: block={} score={} step={}",
                             entry.at.block, entry.score, state.step);
    }
    blocks.push_back(entry.at.block);
    slots.push_back(entry.at.slot);
  }
  if (HasTwice(std::move(blocks))) return InvalidArgument("a block is cached twice");
  if (HasTwice(std::move(slots))) return InvalidArgument("a slot is taken twice");
  return BlockCache(config, std::move(state));
}

std::vector<BlockSlot> BlockCache::Evict(std::span<const uint32_t> selected, uint64_t count) {
  std::vector<Entry> order;
  for (const Entry& entry : state_.entries) {
    if (!std::binary_search(selected.begin(), selected.end(), entry.at.block)) {
      order.push_back(entry);
    }
  }
  // Stable: entries lie in the order in which they came.
  std::stable_sort(order.begin(), order.end(),
                   [](const Entry& a, const Entry& b) { return a.score < b.score; });
  order.resize(count);
  std::vector<BlockSlot> evicted;
  std::vector<uint32_t> slots;
  for (const Entry& entry : order) {
    evicted.push_back(entry.at);
    slots.push_back(entry.at.slot);
  }
  std::sort(slots.begin(), slots.end());
  std::erase_if(state_.entries, [&](const Entry& entry) {
    return std::binary_search(slots.begin(), slots.end(), entry.at.slot);
  });
  return evicted;
}

void BlockCache::Touch(std::span<const uint32_t> blocks) {
  ++state_.step;
  for (Entry& entry : state_.entries) {
    if (!std::binary_search(blocks.begin(), blocks.end(), entry.at.block)) continue;
    if (config_.cache_strategy == CacheStrategy::kLru) {
      entry.score = static_cast<double>(state_.step);
    } else if (config_.reset_selected) {
      entry.score = 0.0;
    }
  }
}

absl::StatusOr<BlockCacheStep> BlockCache::Select(std::span<const uint32_t> blocks) {
  KVASIR_RETURN_IF_ERROR(CheckAscending(blocks, config_.max_cached_block));
  const std::vector<uint32_t> cached = Cached();
  std::vector<uint32_t> misses;
  std::set_difference(blocks.begin(), blocks.end(), cached.begin(), cached.end(),
                      std::back_inserter(misses));
  BlockCacheStep step;
  const uint64_t wanted = state_.entries.size() + misses.size();
  if (wanted > config_.max_cached_block) {
    // Enough of them are not selected: blocks.size() <= max_cached_block.
    step.evicts = Evict(blocks, wanted - config_.max_cached_block);
  }
  const std::vector<std::optional<uint32_t>> slots = Slots();
  uint32_t slot = 0;
  for (const uint32_t block : misses) {
    while (slots[slot]) ++slot;
    step.loads.push_back({block, slot});
    state_.entries.push_back({{block, slot}, 0.0});
    ++slot;
  }
  Touch(blocks);
  return step;
}

absl::Status BlockCache::Update(std::span<const uint32_t> blocks, std::span<const float> mass) {
  if (blocks.size() != mass.size()) {
    return InvalidArgument("each block needs its mass: blocks={} masses={}", blocks.size(),
                           mass.size());
  }
  KVASIR_RETURN_IF_ERROR(CheckAscending(blocks, config_.max_cached_block));
  const std::vector<uint32_t> cached = Cached();
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!std::binary_search(cached.begin(), cached.end(), blocks[i])) {
      return InvalidArgument("block is not cached: block={}", blocks[i]);
    }
    if (!IsScore(mass[i])) {
      return InvalidArgument("mass must be finite and not negative: block={} mass={}", blocks[i],
                             mass[i]);
    }
  }
  if (config_.cache_strategy != CacheStrategy::kLruS) return absl::OkStatus();
  for (Entry& entry : state_.entries) {
    entry.score *= config_.score_decay;
    const auto it = std::lower_bound(blocks.begin(), blocks.end(), entry.at.block);
    if (it != blocks.end() && *it == entry.at.block) {
      entry.score += mass[static_cast<size_t>(it - blocks.begin())];
    }
  }
  return absl::OkStatus();
}

std::vector<uint32_t> BlockCache::Cached() const {
  std::vector<uint32_t> cached;
  for (const Entry& entry : state_.entries) cached.push_back(entry.at.block);
  std::sort(cached.begin(), cached.end());
  return cached;
}

std::optional<uint32_t> BlockCache::SlotOf(uint32_t block) const {
  for (const Entry& entry : state_.entries) {
    if (entry.at.block == block) return entry.at.slot;
  }
  return std::nullopt;
}

std::vector<std::optional<uint32_t>> BlockCache::Slots() const {
  std::vector<std::optional<uint32_t>> slots(config_.max_cached_block);
  for (const Entry& entry : state_.entries) slots[entry.at.slot] = entry.at.block;
  return slots;
}

}  // namespace kvasir
