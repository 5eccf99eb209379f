#include "policies/sepllm.h"

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/parameter_reader.h"
#include "policies/sep_stream_policy.h"
#include "policies/stay_policy.h"
#include "policies/stay_rules.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeSepStatic(ParameterReader& reader) {
  for (const char* key :
       {"sep_cache_size", "cache_size", "sep_accumulation", "use_max_sep_cache"}) {
    KVASIR_RETURN_IF_ERROR(reader.Refuse(key, "form=static"));
  }
  KVASIR_ASSIGN_OR_RETURN(LayerSettings init, reader.PerLayer("init_cache_size", 0));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings local, reader.PerLayer("local_size", 1));
  const char* key = "prefill_local_size";
  const std::string_view written = reader.Value(reader.Given(key) ? key : "local_size");
  KVASIR_ASSIGN_OR_RETURN(LayerSettings prefill, reader.PerLayerOf(key, written, 1));
  KVASIR_ASSIGN_OR_RETURN(const SeparatorSet separators, reader.Separators("separators"));
  if (reader.Value("positions") == "in_cache") {
    return InvalidArgument(
        "positions=in_cache is not possible with form=static: an index would change with every "
        "row; use original or unrotated, or form=manager or form=sepcache");
  }
  KVASIR_ASSIGN_OR_RETURN(const PositionMode positions, reader.Positions(/*in_cache=*/false));
  PolicyLanes lanes =
      GroupLayers({init, local, prefill}, reader.context().layers, [&](const LayerSettings& s) {
        StayPolicyConfig config;
        config.rule = AnyOf(
            {std::make_shared<SinksRule>(s[0]), std::make_shared<SeparatorsRule>(separators)});
        config.window = s[1];
        config.prefill_window = s[2];
        config.prompt_rows = reader.context().prompt_rows;
        return std::make_unique<StayPolicy>(std::move(config));
      });
  lanes.positions = positions;
  lanes.by_prompt = local != prefill;
  return lanes;
}

absl::StatusOr<PolicyLanes> MakeSepStream(ParameterReader& reader, const std::string& form) {
  KVASIR_RETURN_IF_ERROR(reader.Refuse("prefill_local_size", "form=" + form));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings init, reader.PerLayer("init_cache_size", 0));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings sep, reader.PerLayer("sep_cache_size", 1));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings local, reader.PerLayer("local_size", 1));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings cache, reader.PerLayer("cache_size", 1));
  SepStreamPolicyConfig base;
  KVASIR_ASSIGN_OR_RETURN(base.stream.accumulate, reader.Boolean("sep_accumulation"));
  KVASIR_ASSIGN_OR_RETURN(base.stream.use_max, reader.Boolean("use_max_sep_cache"));
  KVASIR_ASSIGN_OR_RETURN(base.stream.separators, reader.Separators("separators"));
  const std::string fallback = form == "manager" ? "in_cache" : "original";
  KVASIR_ASSIGN_OR_RETURN(
      const std::string positions,
      reader.Choice("positions", reader.Given("positions") ? reader.Value("positions") : fallback,
                    {"original", "in_cache"}));
  const PolicyContext& context = reader.context();
  for (uint32_t layer = 0; layer < context.layers; ++layer) {
    if (init[layer] + sep[layer] + local[layer] >= cache[layer]) {
      return InvalidArgument(
          "init_cache_size + sep_cache_size + local_size must be below cache_size: layer={} "
          "init_cache_size={} sep_cache_size={} local_size={} cache_size={}",
          layer, init[layer], sep[layer], local[layer], cache[layer]);
    }
  }
  base.prompt_rows = context.prompt_rows;
  base.in_cache = positions == "in_cache";
  base.stream.variant =
      form == "manager" ? SepStreamVariant::kManager : SepStreamVariant::kSepCache;
  base.stream.pad_id = context.pad_id;
  PolicyLanes lanes =
      GroupLayers({init, sep, local, cache}, context.layers, [&](const LayerSettings& s) {
        SepStreamPolicyConfig config = base;
        config.stream.a = static_cast<int64_t>(s[0]);
        config.stream.s = static_cast<int64_t>(s[1]);
        config.stream.w = static_cast<int64_t>(s[2]);
        config.stream.c = static_cast<int64_t>(s[3]);
        return std::make_unique<SepStreamPolicy>(std::move(config));
      });
  lanes.positions = base.in_cache ? PositionMode::kInCache : PositionMode::kOriginal;
  lanes.by_prompt = true;
  return lanes;
}

absl::StatusOr<PolicyLanes> MakeSepLlm(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(const std::string form,
                          reader.Choice("form", {"static", "sepcache", "manager"}));
  return form == "static" ? MakeSepStatic(reader) : MakeSepStream(reader, form);
}

}  // namespace

PolicyDefinition SepLlmDefinition() {
  return {
      {.name = "sepllm",
       .summary = "the first tokens, the separators and the most recent tokens",
       .source = "SepLLM, arXiv 2412.12094",
       .parameters =
           {{"form", "choice", "static", "static, sepcache, manager",
             "static: all separators stay; sepcache, manager: bounded cache, compacted when it is "
             "full "
             "(as the SepCache class, as the paper's cache manager)",
             false},
            {"init_cache_size", "integer", "4", kCountFromZeroBounds, "initial tokens that stay",
             true},
            {"sep_cache_size", "integer", "128", kCountBounds,
             "most separators kept (sepcache, manager)", true},
            {"local_size", "integer", "256", kCountBounds,
             "most recent tokens that stay, the query's own included", true},
            {"cache_size", "integer", "512",
             "above init_cache_size + sep_cache_size + local_size, at most 2147483648",
             "length at which the cache is compacted (sepcache, manager)", true},
            {"prefill_local_size", "integer", "", kCountBounds,
             "local_size for the tokens of the prompt; default: local_size (static)", true},
            {"sep_accumulation", "boolean", "true", "true, false",
             "old separators survive a compaction (sepcache, manager)", false},
            {"use_max_sep_cache", "boolean", "true", "true, false",
             "drop the oldest separators over sep_cache_size; false: the cache grows instead "
             "(sepcache, manager)",
             false},
            {"separators", "list", "", "token ids separated by '/'",
             "separator tokens; default: those of the model", false},
            {"positions", "choice", "", "original, in_cache, unrotated",
             "positions of keys; default: original for static and sepcache, in_cache for manager; "
             "in_cache not for static, unrotated only for static",
             false}},
       .needs = "separator ids of the model, or separators=; positions=in_cache: the query rotated "
                "at up to "
                "three positions; positions=unrotated: rotation at each read",
       .shareable = true,
       .accepts_rules = false},
      MakeSepLlm};
}

}  // namespace kvasir
