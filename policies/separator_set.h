// Set of separator token ids. Few (9 to 20) and fixed, so a sorted vector; any 32-bit id is fine.
//
// Thread-compatible value. Cost: Contains O(log size). Exact ids only: ".\n" is not "." .
// Source: SepLLM (arXiv 2412.12094), section 3.
#ifndef KVASIR_POLICIES_SEPARATOR_SET_H_
#define KVASIR_POLICIES_SEPARATOR_SET_H_

#include <algorithm>
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
  }

  bool Contains(TokenId id) const { return std::binary_search(ids_.begin(), ids_.end(), id); }
  bool empty() const { return ids_.empty(); }

 private:
  std::vector<TokenId> ids_;  // ascending, each once
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SEPARATOR_SET_H_
