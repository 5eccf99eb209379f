// What the definitions of score-based policies share: settings of a lane, parameters, needs.
//
// Pure functions; thread-safe.
#ifndef KVASIR_POLICIES_SCORED_DEFINITION_H_
#define KVASIR_POLICIES_SCORED_DEFINITION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/parameter_reader.h"
#include "policies/policy_definition.h"
#include "policies/retention_policy.h"
#include "policies/selection/budget_selector.h"

namespace kvasir {

struct ScoredSettings {
  ScoreNeeds needs;
  uint64_t budget = 1;      // kept by score or rule
  uint64_t recent = 0;      // last rows that stay, beside the budget
  uint64_t start_size = 0;  // first rows that stay, out of the budget
  std::optional<kernels::Pooling> pooling;
  uint32_t kernel = 1;
  uint64_t interval = 0;  // 0: once, at the end of the prompt
};

// A ScoredPolicy with a BudgetSelector; the rules of the spec always stay, out of the budget.
// REQUIRES: bounds as ScoredPolicy and BudgetSelector have them.
std::unique_ptr<RetentionPolicy> MakeScored(const ScoredSettings& settings,
                                            const ParameterReader& reader);

// Names of two parameters: kInvalidArgument unless small < large (strict) or small <= large, in
// each layer.
absl::Status CheckFits(std::string_view small_name, const LayerSettings& small,
                       std::string_view large_name, const LayerSettings& large, bool strict);

// heads=per_head or shared. True: shared.
absl::StatusOr<bool> ReadHeads(ParameterReader& reader);

PolicyParameterInfo HeadsParameter();
PolicyParameterInfo StartSizeParameter();
PolicyParameterInfo EvictIntervalParameter();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SCORED_DEFINITION_H_
