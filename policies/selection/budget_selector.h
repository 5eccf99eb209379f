// BudgetSelector: the entries with the largest scores, up to a budget. SnapKV, H2O, TOVA, Knorm and
// KeyDiff differ in the scores and in the settings below, not in the choice.
//
//   SnapKV   kWindowQueries of W rows, recent = W, pooling average 5 (the authors) or maximum 7
//   H2O      running attention mass, budget = heavy hitters, recent = recent size
//   TOVA     kWindowQueries of 1 row, recent = 1, shared_across_heads
//   Knorm, KeyDiff   the keys alone, recent = 0
//
// Sources: SnapKV arXiv 2404.14469, H2O 2306.14048, TOVA 2401.06104, KeyDiff 2504.15364; where the
// authors' code leaves a rule open, larger score first and the lower entry on a tie.
#ifndef KVASIR_POLICIES_SELECTION_BUDGET_SELECTOR_H_
#define KVASIR_POLICIES_SELECTION_BUDGET_SELECTOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "kernels/scores.h"
#include "policies/selection/selector.h"
#include "policies/stay_rule.h"

namespace kvasir {

inline constexpr uint32_t kMaxPoolingKernel = 1023;

struct BudgetConfig {
  uint64_t budget = 0;  // entries chosen among the candidates, >= 1
  uint64_t recent = 0;  // the last entries: no candidates, and not in the result
  std::optional<kernels::Pooling> pooling;  // over the candidates alone, per head of the scores
  uint32_t kernel = 5;                      // of the pooling: odd, 1 to kMaxPoolingKernel
  bool shared_across_heads = false;         // sum over the heads, one set for all
  // Candidates that must stay; they take part of the budget first. Where they exceed it: those
  // with a row number below start_size from the lowest on, then the newest of the others.
  std::shared_ptr<const StayRule> always;
  uint64_t start_size = 0;
};

// Immutable, thread-safe.
class BudgetSelector final : public Selector {
 public:
  // Errors: kInvalidArgument with field, value and bound.
  static absl::StatusOr<std::shared_ptr<const BudgetSelector>> Create(BudgetConfig config);

  // The scores of the query heads of a kv head are pooled first, then averaged, as kvpress does
  // (summed here, which ranks alike).
  // SnapKV's authors choose for each query head: give kv_heads = heads for that. Up to `budget`
  // candidates all stay; more, and each set has exactly `budget` entries. shared_across_heads
  // needs heads that share their rows (sets = 1).
  // Errors: as the interface; also sums that are not finite, and entries outside 1 to 2^32 - 1.
  // Memory: two floats a candidate, a few words for each entry that stays.
  absl::StatusOr<std::vector<KeepSet>> Select(const ScoredRows& rows) const override;
  std::string Description() const override;

  const BudgetConfig& config() const { return config_; }

 private:
  explicit BudgetSelector(BudgetConfig config) : config_(std::move(config)) {}

  absl::Status Check(const ScoredRows& rows) const;
  void AddPooled(std::span<const float> scores, std::span<float> pooled,
                 std::span<float> sum) const;
  KeepSet Choose(std::span<const float> scores, std::span<const uint64_t> rows,
                 std::span<const TokenId> ids) const;
  KeepSet FitForced(const KeepSet& forced, std::span<const uint64_t> rows) const;

  BudgetConfig config_;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SELECTION_BUDGET_SELECTOR_H_
