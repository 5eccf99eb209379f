#include "policies/window.h"

#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "policies/parameter_reader.h"
#include "policies/stay_policy.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeWindow(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(LayerSettings size, reader.PerLayer("size", 1));
  KVASIR_ASSIGN_OR_RETURN(const PositionMode positions, reader.Positions(/*in_cache=*/false));
  PolicyLanes lanes = GroupLayers({size}, reader.context().layers, [&](const LayerSettings& s) {
    StayPolicyConfig config;
    config.rule = reader.rules();
    config.window = config.prefill_window = s[0];
    return std::make_unique<StayPolicy>(std::move(config));
  });
  lanes.positions = positions;
  return lanes;
}

}  // namespace

PolicyDefinition WindowDefinition() {
  return {{.name = "window",
           .summary = "the most recent tokens, and what rules before it keep",
           .source = "",
           .parameters = {{"size", "integer", "256", kCountBounds,
                           "most recent tokens that stay, the query's own included", true},
                          PositionsParameter()},
           .needs = "nothing; positions=unrotated: rotation at each read",
           .shareable = true,
           .accepts_rules = true},
          MakeWindow};
}

}  // namespace kvasir
