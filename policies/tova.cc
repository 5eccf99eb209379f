#include "policies/tova.h"

#include <memory>

#include "base/status_macros.h"
#include "policies/scored_definition.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeTova(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(LayerSettings capacity, reader.PerLayer("max_capacity", 2));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t interval, reader.Integer("evict_interval", 1, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t start, reader.Integer("start_size", 0, kRowsMax));
  const uint32_t layers = reader.context().layers;
  KVASIR_RETURN_IF_ERROR(CheckFits("start_size", LayerSettings(layers, start), "max_capacity",
                                   capacity, /*strict=*/true));
  return GroupLayers({capacity}, layers, [&](const LayerSettings& s) {
    ScoredSettings settings;
    settings.needs.source = ScoreSource::kAttentionMass;
    settings.needs.decay = 0;  // the last query alone
    settings.needs.shared_across_heads = true;
    settings.budget = s[0] - 1;
    settings.recent = 1;
    settings.start_size = start;
    settings.interval = interval;
    return MakeScored(settings, reader);
  });
}

}  // namespace

PolicyDefinition TovaDefinition() {
  return {{.name = "tova",
           .summary = "tokens to which the last query attends most, the same for all heads",
           .source = "TOVA, arXiv 2401.06104",
           .parameters = {{"max_capacity", "integer", "1024", "2..2147483648",
                           "tokens that stay, the last one among them", true},
                          EvictIntervalParameter(),
                          StartSizeParameter()},
           .needs = "attention mass of every visible row by the last query, in each layer",
           .shareable = false,
           .accepts_rules = true},
          MakeTova};
}

}  // namespace kvasir
