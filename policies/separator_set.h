// Set of separator token ids. Few (9 to 20) and fixed, so a sorted vector; any 32-bit id is fine.
//
// Thread-compatible value. Cost: Contains O(log size). Exact ids only: ".\n" is not "." .
// Source: SepLLM (arXiv 2412.12094), section 3.
#ifndef KVASIR_POLICIES_SEPARATOR_SET_H_
#define KVASIR_POLICIES_SEPARATOR_SET_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "policies/retention_policy.h"

namespace kvasir {

class SeparatorSet {
 public:
  SeparatorSet() = default;
  explicit SeparatorSet(std::vector<TokenId> ids) : ids_(std::move(ids)) {
    std::sort(ids_.begin(), ids_.end());
    ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
    for (const TokenId id : ids_) bits_ |= Bit(id);
  }

  bool Contains(TokenId id) const {
    return (bits_ & Bit(id)) != 0 && std::binary_search(ids_.begin(), ids_.end(), id);
  }
  const std::vector<TokenId>& ids() const { return ids_; }  // ascending, each once
  bool empty() const { return ids_.empty(); }

 private:
  static constexpr uint64_t Bit(TokenId id) { return uint64_t{1} << (id % 64); }

  std::vector<TokenId> ids_;
  uint64_t bits_ = 0;  // of their last six bits: most other tokens are told apart at once
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SEPARATOR_SET_H_
