#include "policies/sep_static.h"

#include <algorithm>
#include <utility>

namespace kvasir {

namespace {

SinksRule InitialRows(const SepStaticConfig& config, std::span<const TokenId> prompt) {
  if (!config.adaptive_init) return SinksRule(config.init);
  const uint64_t length = config.prefill_len;
  uint64_t pads = 0;
  for (const TokenId id : prompt.first(std::min<size_t>(prompt.size(), length))) {
    pads += config.pad_id && id == *config.pad_id ? 1 : 0;
  }
  if (config.init == 0 || length == 0) return SinksRule(0);
  // Every initial row is clamped to the last one of the prompt.
  const uint64_t first = std::min(pads, length - 1);
  return SinksRule(std::max(std::min(pads + config.init, length), first + 1), first);
}

}  // namespace

SepStaticRule::SepStaticRule(SepStaticConfig config, std::span<const TokenId> prompt)
    : config_(std::move(config)),
      rule_(AnyOf({std::make_shared<SinksRule>(InitialRows(config_, prompt)),
                   std::make_shared<SeparatorsRule>(config_.separators)})) {}

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
