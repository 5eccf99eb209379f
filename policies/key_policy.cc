#include "policies/key_policy.h"

#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "policies/scored_definition.h"

namespace kvasir {

absl::StatusOr<PolicyLanes> MakeKeyPolicy(ParameterReader& reader, ScoreSource source) {
  KVASIR_ASSIGN_OR_RETURN(LayerSettings capacity, reader.PerLayer("max_capacity", 1));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings recent, reader.PerLayer("recent_size", 0));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t interval, reader.Integer("evict_interval", 1, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t start, reader.Integer("start_size", 0, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const bool shared, ReadHeads(reader));
  const PolicyContext& context = reader.context();
  KVASIR_RETURN_IF_ERROR(
      CheckFits("recent_size", recent, "max_capacity", capacity, /*strict=*/true));
  LayerSettings forced = recent;
  for (uint64_t& size : forced) size += start;
  KVASIR_RETURN_IF_ERROR(CheckFits("start_size + recent_size", forced, "max_capacity", capacity,
                                   /*strict=*/false));
  PolicyLanes lanes = GroupLayers({capacity, recent}, context.layers, [&](const LayerSettings& s) {
    ScoredSettings settings;
    settings.needs.source = source;
    settings.needs.shared_across_heads = shared;
    settings.budget = s[0] - s[1];
    settings.recent = s[1];
    settings.start_size = start;
    settings.interval = context.prompt_rows > 0 ? 0 : interval;
    return MakeScored(settings, reader);
  });
  lanes.by_prompt = true;
  return lanes;
}

PolicyInfo KeyPolicyInfo(std::string name, std::string summary, std::string source) {
  PolicyParameterInfo interval = EvictIntervalParameter();
  interval.description =
      "tokens from one decision to the next, where the length of the prompt is not given; where it "
      "is, one decision is made, at the prompt's end";
  return {.name = std::move(name),
          .summary = std::move(summary),
          .source = std::move(source),
          .parameters = {{"max_capacity", "integer", "1024", kCountBounds,
                          "tokens that stay, the recent ones among them", true},
                         {"recent_size", "integer", "0", "0, or below max_capacity",
                          "most recent tokens that no decision drops; 0 is the paper", true},
                         std::move(interval),
                         StartSizeParameter(),
                         HeadsParameter()},
          .needs = "nothing: the daemon reads the stored keys",
          .shareable = true,
          .accepts_rules = true};
}

}  // namespace kvasir
