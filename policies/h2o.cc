#include "policies/h2o.h"

#include <memory>

#include "base/status_macros.h"
#include "policies/scored_definition.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeH2o(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(LayerSettings heavy, reader.PerLayer("hh_size", 1));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings recent, reader.PerLayer("recent_size", 0));
  KVASIR_ASSIGN_OR_RETURN(const double decay, reader.Fraction("decay"));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t interval, reader.Integer("evict_interval", 1, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t start, reader.Integer("start_size", 0, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const bool shared, ReadHeads(reader));
  const uint32_t layers = reader.context().layers;
  KVASIR_RETURN_IF_ERROR(
      CheckFits("start_size", LayerSettings(layers, start), "hh_size", heavy, /*strict=*/false));
  return GroupLayers({heavy, recent}, layers, [&](const LayerSettings& s) {
    ScoredSettings settings;
    settings.needs.source = ScoreSource::kAttentionMass;
    settings.needs.decay = decay;
    settings.needs.shared_across_heads = shared;
    settings.budget = s[0];
    settings.recent = s[1];
    settings.start_size = start;
    settings.interval = interval;
    return MakeScored(settings, reader);
  });
}

}  // namespace

PolicyDefinition H2oDefinition() {
  return {{.name = "h2o",
           .summary = "tokens with the largest attention mass so far, and the most recent ones",
           .source = "H2O, arXiv 2306.14048",
           .parameters = {{"hh_size", "integer", "1024", kCountBounds,
                           "heavy hitters: tokens kept by their mass", true},
                          {"recent_size", "integer", "1024", kCountFromZeroBounds,
                           "most recent tokens that no decision drops", true},
                          {"decay", "real", "1", "above 0, at most 1",
                           "factor of the mass so far, for each token that follows; 1 is the paper",
                           false},
                          EvictIntervalParameter(),
                          StartSizeParameter(),
                          HeadsParameter()},
           .needs = "attention mass of every visible row, summed over the queries, in each layer "
                    "and kv head",
           .shareable = false,
           .accepts_rules = true},
          MakeH2o};
}

}  // namespace kvasir
