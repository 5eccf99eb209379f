#include "policies/gemfilter.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/parameter_reader.h"
#include "policies/window_policies.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

// The authors take layers 13 of 32, 19 of 40 and 19 of 32, by trial; in small models the layer that
// finds lies later: 0.7 of the depth.
uint64_t DefaultLayer(uint64_t layers) { return std::min(layers - 1, (7 * layers + 5) / 10); }

absl::StatusOr<PolicyLanes> MakeGemFilter(ParameterReader& reader) {
  const uint32_t layers = reader.context().layers;
  constexpr uint64_t kMax = kRowsMax;
  const std::string fallback = fmt::format("{}", DefaultLayer(layers));
  const std::string_view layer_text =
      reader.Given("filter_layer") ? reader.Value("filter_layer") : std::string_view(fallback);
  KVASIR_ASSIGN_OR_RETURN(const uint64_t layer,
                          reader.IntegerOf("filter_layer", layer_text, 0, layers - 1));
  GemFilterSpec spec;
  KVASIR_ASSIGN_OR_RETURN(spec.topk, reader.Integer("topk", 1, kMax));
  KVASIR_ASSIGN_OR_RETURN(spec.kernel, reader.Kernel("kernel_size"));
  KVASIR_ASSIGN_OR_RETURN(spec.n_sink, reader.Integer("n_sink", 0, kMax));
  KVASIR_ASSIGN_OR_RETURN(spec.n_tail, reader.Integer("n_tail", 0, kMax));
  spec.filter_layer = static_cast<uint32_t>(layer);
  if (spec.n_sink + spec.n_tail > spec.topk) {
    return InvalidArgument("n_sink + n_tail must be at most topk: n_sink={} n_tail={} topk={}",
                           spec.n_sink, spec.n_tail, spec.topk);
  }
  PolicyLanes lanes =
      GroupLayers({}, layers, [](const LayerSettings&) { return std::make_unique<FullPolicy>(); });
  lanes.selection = spec;
  return lanes;
}

}  // namespace

PolicyDefinition GemFilterDefinition() {
  return {
      {.name = "gemfilter",
       .summary = "the tokens of the prompt that its last query looks at in one layer, "
                  "prefilled again alone",
       .source = "GemFilter, arXiv 2409.17422",
       .parameters = {{"filter_layer", "integer", "", "0..layers - 1",
                       "layer whose last query chooses; default: 0.7 of the layers, rounded",
                       false},
                      {"topk", "integer", "1024", kCountBounds, "tokens chosen", false},
                      {"kernel_size", "integer", "5", kKernelBounds,
                       "neighbours over which scores are averaged", false},
                      {"n_sink", "integer", "0", kCountFromZeroBounds,
                       "first tokens that are always chosen, out of topk; 0 is the paper", false},
                      {"n_tail", "integer", "0", kCountFromZeroBounds,
                       "last tokens that are always chosen, out of topk; 0 is the paper", false}},
       .needs = "a first pass through layers 0 to filter_layer, and a second prefill of the "
                "chosen tokens",
       .shareable = false,
       .accepts_rules = false},
      MakeGemFilter};
}

}  // namespace kvasir
