#include "policies/scored_definition.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "policies/scored_policy.h"
#include "policies/stay_rules.h"

namespace kvasir {

std::unique_ptr<RetentionPolicy> MakeScored(const ScoredSettings& settings,
                                            const ParameterReader& reader) {
  BudgetConfig budget;
  budget.budget = settings.budget;
  budget.recent = settings.recent;
  budget.pooling = settings.pooling;
  budget.kernel = settings.kernel;
  budget.shared_across_heads = settings.needs.shared_across_heads;
  std::shared_ptr<const StayRule> sinks;
  if (settings.start_size > 0) sinks = std::make_shared<SinksRule>(settings.start_size);
  budget.always = AnyOf({std::move(sinks), reader.rules()});
  budget.start_size = budget.always == nullptr ? 0 : budget.always->InitialRows();
  absl::StatusOr<std::shared_ptr<const BudgetSelector>> selector =
      BudgetSelector::Create(std::move(budget));
  KVASIR_CHECK(selector.ok(), "{}", MessageOf(selector.status()));
  ScoredPolicyConfig config;
  config.needs = settings.needs;
  config.selector = *std::move(selector);
  config.budget = settings.budget;
  config.recent = settings.recent;
  config.interval = settings.interval;
  config.prompt_rows = reader.context().prompt_rows;
  return std::make_unique<ScoredPolicy>(std::move(config));
}

absl::Status CheckFits(std::string_view small_name, const LayerSettings& small,
                       std::string_view large_name, const LayerSettings& large, bool strict) {
  for (size_t layer = 0; layer < small.size(); ++layer) {
    if (strict ? small[layer] < large[layer] : small[layer] <= large[layer]) continue;
    return InvalidArgument("{} must be {} {}: layer={} {}={} {}={}", small_name,
                           strict ? "below" : "at most", large_name, layer, small_name,
                           small[layer], large_name, large[layer]);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ReadHeads(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(const std::string heads, reader.Choice("heads", {"per_head", "shared"}));
  return heads == "shared";
}

PolicyParameterInfo HeadsParameter() {
  return {"heads",
          "choice",
          "per_head",
          "per_head, shared",
          "per_head: each kv head keeps its own set; shared: one set for all heads of a layer",
          false};
}

PolicyParameterInfo StartSizeParameter() {
  return {"start_size",
          "integer",
          "0",
          kCountFromZeroBounds,
          "first tokens that stay whatever their score, out of the budget; 0 is the paper",
          false};
}

PolicyParameterInfo EvictIntervalParameter() {
  return {"evict_interval",
          "integer",
          "64",
          kCountBounds,
          "tokens from one decision to the next; 1 is the paper",
          false};
}

}  // namespace kvasir
