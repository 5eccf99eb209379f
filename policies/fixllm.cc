#include "policies/fixllm.h"

#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "policies/parameter_reader.h"
#include "policies/stay_policy.h"
#include "policies/stay_rules.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeFixLlm(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(LayerSettings init, reader.PerLayer("init_cache_size", 0));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings local, reader.PerLayer("local_size", 1));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings delta, reader.PerLayer("delta", 1));
  KVASIR_ASSIGN_OR_RETURN(const PositionMode positions, reader.Positions(/*in_cache=*/false));
  PolicyLanes lanes =
      GroupLayers({init, local, delta}, reader.context().layers, [](const LayerSettings& s) {
        StayPolicyConfig config;
        config.rule =
            AnyOf({std::make_shared<SinksRule>(s[0]), std::make_shared<StrideRule>(s[2], s[0])});
        config.window = config.prefill_window = s[1];
        return std::make_unique<StayPolicy>(std::move(config));
      });
  lanes.positions = positions;
  return lanes;
}

}  // namespace

PolicyDefinition FixLlmDefinition() {
  return {{.name = "fixllm",
           .summary = "the first tokens, one of every `delta`, and the most recent tokens",
           .source = "FixLLM of SepLLM, arXiv 2412.12094",
           .parameters = {{"init_cache_size", "integer", "4", kCountFromZeroBounds,
                           "initial tokens that stay", true},
                          {"local_size", "integer", "256", kCountBounds,
                           "most recent tokens that stay, the query's own included", true},
                          {"delta", "integer", "5", kCountBounds,
                           "after the initial tokens, the last of every `delta` stays", true},
                          PositionsParameter()},
           .needs = "nothing; positions=unrotated: rotation at each read",
           .shareable = true,
           .accepts_rules = false},
          MakeFixLlm};
}

}  // namespace kvasir
