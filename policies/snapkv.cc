#include "policies/snapkv.h"

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/scored_definition.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeSnapKv(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t window, reader.Integer("window_size", 1, 1u << 16));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings capacity, reader.PerLayer("max_capacity_prompt", 2));
  KVASIR_ASSIGN_OR_RETURN(const uint32_t kernel, reader.Kernel("kernel_size"));
  KVASIR_ASSIGN_OR_RETURN(const std::string pooling,
                          reader.Choice("pooling", {"avgpool", "maxpool"}));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t start, reader.Integer("start_size", 0, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const bool shared, ReadHeads(reader));
  const uint32_t layers = reader.context().layers;
  KVASIR_RETURN_IF_ERROR(CheckFits("start_size + window_size",
                                   LayerSettings(layers, start + window), "max_capacity_prompt",
                                   capacity, /*strict=*/true));
  if (reader.context().prompt_rows == 0) {
    return InvalidArgument(
        "snapkv decides once, at the end of the prompt, so its length is needed: prompt_rows=0 "
        "min=1");
  }
  return GroupLayers({capacity}, layers, [&](const LayerSettings& s) {
    ScoredSettings settings;
    settings.needs.source = ScoreSource::kWindowQueries;
    settings.needs.window_size = static_cast<uint32_t>(window);
    settings.needs.shared_across_heads = shared;
    settings.budget = s[0] - window;
    settings.recent = window;
    settings.start_size = start;
    settings.pooling =
        pooling == "maxpool" ? kernels::Pooling::kMaximum : kernels::Pooling::kAverage;
    settings.kernel = kernel;
    return MakeScored(settings, reader);
  });
}

}  // namespace

PolicyDefinition SnapKvDefinition() {
  return {{.name = "snapkv",
           .summary = "what the last queries of the prompt attend to, chosen once at its end",
           .source = "SnapKV, arXiv 2404.14469",
           .parameters = {{"window_size", "integer", "32", "1..65536",
                           "last tokens of the prompt: their queries score, and they stay", false},
                          {"max_capacity_prompt", "integer", "2048",
                           "above start_size + window_size, at most 2147483648",
                           "tokens of the prompt that stay, the window among them", true},
                          {"kernel_size", "integer", "5", kKernelBounds,
                           "neighbours over which scores are pooled", false},
                          {"pooling", "choice", "avgpool", "avgpool, maxpool",
                           "how they are pooled", false},
                          StartSizeParameter(),
                          HeadsParameter()},
           .needs = "prompt_rows; the query rows of the prompt's last window_size tokens, in each "
                    "layer",
           .shareable = false,
           .accepts_rules = true},
          MakeSnapKv};
}

}  // namespace kvasir
