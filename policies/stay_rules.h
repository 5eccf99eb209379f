// The rules that composed policies are made of, and their definitions for the registry.
//
// Immutable, thread-safe. Source: StreamingLLM (arXiv 2309.17453) for the initial rows, SepLLM
// (arXiv 2412.12094) for separators and for the stride (its FixLLM baseline).
#ifndef KVASIR_POLICIES_STAY_RULES_H_
#define KVASIR_POLICIES_STAY_RULES_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "policies/policy_definition.h"
#include "policies/separator_set.h"
#include "policies/stay_rule.h"

namespace kvasir {

// The rows [first, end).
class SinksRule final : public StayRule {
 public:
  explicit SinksRule(uint64_t end, uint64_t first = 0) : first_(first), end_(end) {}
  bool Stays(uint64_t row, TokenId /*id*/) const override { return row >= first_ && row < end_; }
  std::string Description() const override;
  uint64_t InitialRows() const override { return first_ == 0 ? end_ : 0; }

 private:
  uint64_t first_;
  uint64_t end_;
};

// Rows whose token is a separator.
class SeparatorsRule final : public StayRule {
 public:
  explicit SeparatorsRule(SeparatorSet separators) : separators_(std::move(separators)) {}
  bool Stays(uint64_t /*row*/, TokenId id) const override { return separators_.Contains(id); }
  std::string Description() const override;

 private:
  SeparatorSet separators_;
};

// The last row of every full run of `stride` rows from `start` on: (row - start) mod stride ==
// stride - 1. REQUIRES: stride >= 1.
class StrideRule final : public StayRule {
 public:
  StrideRule(uint64_t stride, uint64_t start) : stride_(stride), start_(start) {}
  bool Stays(uint64_t row, TokenId /*id*/) const override {
    return row >= start_ && (row - start_) % stride_ == stride_ - 1;
  }
  std::string Description() const override;

 private:
  uint64_t stride_;
  uint64_t start_;
};

// What any of its parts keeps.
class AnyOfRule final : public StayRule {
 public:
  explicit AnyOfRule(std::vector<std::shared_ptr<const StayRule>> parts)
      : parts_(std::move(parts)) {}
  bool Stays(uint64_t row, TokenId id) const override {
    for (const auto& part : parts_) {
      if (part->Stays(row, id)) return true;
    }
    return false;
  }
  std::string Description() const override;
  uint64_t InitialRows() const override {
    uint64_t rows = 0;
    for (const auto& part : parts_) rows = std::max(rows, part->InitialRows());
    return rows;
  }

 private:
  std::vector<std::shared_ptr<const StayRule>> parts_;  // none is null
};

// Null parts are left out; null if nothing is left.
std::shared_ptr<const StayRule> AnyOf(std::vector<std::shared_ptr<const StayRule>> parts);

RuleDefinition SinksDefinition();
RuleDefinition SeparatorsDefinition();
RuleDefinition StrideDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_STAY_RULES_H_
