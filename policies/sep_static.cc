#include "policies/sep_static.h"

#include <algorithm>
#include <utility>

namespace kvasir {

SepStaticRule::SepStaticRule(SepStaticConfig config, std::span<const TokenId> prompt)
    : config_(std::move(config)), init_end_(config_.init) {
  if (!config_.adaptive_init) return;
  const uint64_t length = config_.prefill_len;
  uint64_t pads = 0;
  for (const TokenId id : prompt.first(std::min<size_t>(prompt.size(), length))) {
    pads += config_.pad_id && id == *config_.pad_id ? 1 : 0;
  }
  // Every initial row is clamped to the last one of the prompt.
  init_first_ = length == 0 ? 0 : std::min(pads, length - 1);
  init_end_ = config_.init == 0 ? init_first_ : std::min(pads + config_.init, length);
  init_end_ = std::max(init_end_, config_.init > 0 && length > 0 ? init_first_ + 1 : init_first_);
}

bool SepStaticRule::Sees(uint64_t query, uint64_t key, TokenId key_id) const {
  if (key > query) return false;
  const bool generates = query >= config_.prefill_len;
  if (!generates && config_.prefill_hides_padding && config_.pad_id && key_id == *config_.pad_id) {
    return false;
  }
  const uint64_t window = WindowOf(query);
  const bool near = query - key < window || (generates && window == 0);
  return near || Stays(key, key_id);
}

std::vector<uint64_t> SepStaticRule::Visible(uint64_t query, std::span<const TokenId> ids) const {
  std::vector<uint64_t> rows;
  for (uint64_t key = 0; key <= query; ++key) {
    if (Sees(query, key, ids[key])) rows.push_back(key);
  }
  return rows;
}

}  // namespace kvasir
