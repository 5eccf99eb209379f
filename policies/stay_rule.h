// StayRule: which rows stay visible for ever, by row number and token id alone.
//
// The parts of which token-uniform policies are composed: initial rows, separators, every d-th row.
// Immutable, thread-safe.
#ifndef KVASIR_POLICIES_STAY_RULE_H_
#define KVASIR_POLICIES_STAY_RULE_H_

#include <cstdint>
#include <string>

#include "policies/selection/selector.h"

namespace kvasir {

class StayRule {
 public:
  virtual ~StayRule() = default;

  // Whether the row is visible to every later query, however far away. O(log size of the rule).
  virtual bool Stays(uint64_t row, TokenId id) const = 0;

  // The rule with all its settings: those of equal text keep equal rows.
  virtual std::string Description() const = 0;

  // All rows below it stay: those to save first where a budget has no room for every row that
  // stays.
  virtual uint64_t InitialRows() const { return 0; }
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_STAY_RULE_H_
