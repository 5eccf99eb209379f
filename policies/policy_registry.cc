#include "policies/policy_registry.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/policy_spec.h"
#include "policies/sep_static_policy.h"
#include "policies/sep_stream_policy.h"
#include "policies/window_policies.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir {
namespace {

constexpr uint64_t kRowsMax = uint64_t{1} << 31;  // rows of a sequence are 32-bit numbers
constexpr uint32_t kLayersMax = 1u << 16;
constexpr char kCountBounds[] = "1..2147483648";
constexpr char kCountFromZeroBounds[] = "0..2147483648";

// Reads the parameters of one spec, in the order of the canonical text, and writes that text.
class Reader {
 public:
  Reader(const PolicySpec& spec, const PolicyInfo& info, const PolicyContext& context)
      : spec_(spec), info_(info), context_(context) {}

  // As written, else the default of the registry.
  std::string_view Value(std::string_view key) const {
    for (const auto& [name, value] : spec_.parameters) {
      if (name == key) return value;
    }
    for (const PolicyParameterInfo& parameter : info_.parameters) {
      if (parameter.name == key) return parameter.default_value;
    }
    return {};
  }

  bool Given(std::string_view key) const {
    return std::any_of(spec_.parameters.begin(), spec_.parameters.end(),
                       [&](const auto& parameter) { return parameter.first == key; });
  }

  absl::StatusOr<std::vector<uint64_t>> PerLayer(std::string_view key, uint64_t min) {
    return PerLayerOf(key, Value(key), min);
  }

  absl::StatusOr<std::vector<uint64_t>> PerLayerOf(std::string_view key, std::string_view value,
                                                   uint64_t min) {
    KVASIR_ASSIGN_OR_RETURN(std::vector<uint64_t> values,
                            ParsePerLayer(key, value, min, kRowsMax, context_.layers));
    Write(key, FormatPerLayer(values));
    return values;
  }

  absl::StatusOr<bool> Boolean(std::string_view key) {
    KVASIR_ASSIGN_OR_RETURN(const bool value, ParseBoolean(key, Value(key)));
    Write(key, value ? "true" : "false");
    return value;
  }

  absl::StatusOr<std::string> Choice(std::string_view key, std::string_view value,
                                     const std::vector<std::string>& known) {
    if (std::find(known.begin(), known.end(), value) == known.end()) {
      return InvalidArgument("{} is unknown: value={} known={}", key, value,
                             fmt::format("{}", fmt::join(known, ",")));
    }
    Write(key, value);
    return std::string(value);
  }

  absl::StatusOr<SeparatorSet> Separators() {
    std::vector<TokenId> ids = context_.separators;
    if (Given("separators")) {
      KVASIR_ASSIGN_OR_RETURN(ids, ParseTokenIds("separators", Value("separators")));
    }
    if (ids.empty()) {
      return InvalidArgument(
          "separators are needed: the model names none, give separators=ID/ID/...");
    }
    Write("separators", FormatTokenIds(ids));
    return SeparatorSet(std::move(ids));
  }

  absl::Status Refuse(std::string_view key, std::string_view form) const {
    if (!Given(key)) return absl::OkStatus();
    return InvalidArgument("{} does not apply to form={}", key, form);
  }

  const PolicyContext& context() const { return context_; }
  std::string Canonical() const {
    return text_.empty() ? spec_.name : fmt::format("{}:{}", spec_.name, text_);
  }

 private:
  void Write(std::string_view key, std::string_view value) {
    text_ += fmt::format("{}{}={}", text_.empty() ? "" : ",", key, value);
  }

  const PolicySpec& spec_;
  const PolicyInfo& info_;
  const PolicyContext& context_;
  std::string text_;
};

using Settings = std::vector<uint64_t>;
using Maker = std::function<std::unique_ptr<RetentionPolicy>(const Settings&)>;

// Groups layers with equal settings. columns[k][layer] is setting k of a layer.
PolicyLanes GroupLayers(const std::vector<Settings>& columns, uint32_t layers, const Maker& make) {
  PolicyLanes result;
  std::map<Settings, uint32_t> lane_of;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    Settings settings;
    for (const Settings& column : columns) settings.push_back(column[layer]);
    const auto next = static_cast<uint32_t>(result.lanes.size());
    const auto [found, added] = lane_of.try_emplace(settings, next);
    if (added) result.lanes.push_back(make(settings));
    result.lane_of_layer.push_back(found->second);
  }
  return result;
}

absl::StatusOr<PolicyLanes> MakeFull(Reader& reader) {
  return GroupLayers({}, reader.context().layers,
                     [](const Settings&) { return std::make_unique<FullPolicy>(); });
}

absl::StatusOr<PolicyLanes> MakeStreamingLlm(Reader& reader) {
  KVASIR_ASSIGN_OR_RETURN(Settings start, reader.PerLayer("start_size", 0));
  KVASIR_ASSIGN_OR_RETURN(Settings recent, reader.PerLayer("recent_size", 1));
  KVASIR_ASSIGN_OR_RETURN(
      const std::string positions,
      reader.Choice("positions", reader.Value("positions"), {"original", "in_cache"}));
  const bool in_cache = positions == "in_cache";
  PolicyLanes lanes = GroupLayers({start, recent}, reader.context().layers, [&](const Settings& s) {
    return std::make_unique<StreamingLlmPolicy>(StreamingLlmConfig{s[0], s[1], in_cache});
  });
  lanes.positions = in_cache ? PositionMode::kInCache : PositionMode::kOriginal;
  return lanes;
}

absl::StatusOr<PolicyLanes> MakeSepStatic(Reader& reader) {
  for (const char* key :
       {"sep_cache_size", "cache_size", "sep_accumulation", "use_max_sep_cache"}) {
    KVASIR_RETURN_IF_ERROR(reader.Refuse(key, "static"));
  }
  KVASIR_ASSIGN_OR_RETURN(Settings init, reader.PerLayer("init_cache_size", 0));
  KVASIR_ASSIGN_OR_RETURN(Settings local, reader.PerLayer("local_size", 1));
  const char* key = "prefill_local_size";
  const std::string_view written = reader.Value(reader.Given(key) ? key : "local_size");
  KVASIR_ASSIGN_OR_RETURN(Settings prefill, reader.PerLayerOf(key, written, 1));
  KVASIR_ASSIGN_OR_RETURN(const SeparatorSet separators, reader.Separators());
  if (reader.Value("positions") == "in_cache") {
    return InvalidArgument(
        "positions=in_cache is not possible with form=static: an index would change with every "
        "row; "
        "use original, or form=manager or form=sepcache");
  }
  const std::string_view positions =
      reader.Given("positions") ? reader.Value("positions") : "original";
  KVASIR_RETURN_IF_ERROR(reader.Choice("positions", positions, {"original"}).status());
  const PolicyContext& context = reader.context();
  return GroupLayers({init, local, prefill}, context.layers, [&](const Settings& s) {
    SepStaticConfig config;
    config.init = s[0];
    config.window = s[1];
    config.prefill_window = s[2];
    config.prefill_len = context.prompt_rows;
    config.separators = separators;
    return std::make_unique<SepStaticPolicy>(std::move(config));
  });
}

absl::StatusOr<PolicyLanes> MakeSepStream(Reader& reader, const std::string& form) {
  KVASIR_RETURN_IF_ERROR(reader.Refuse("prefill_local_size", form));
  KVASIR_ASSIGN_OR_RETURN(Settings init, reader.PerLayer("init_cache_size", 0));
  KVASIR_ASSIGN_OR_RETURN(Settings sep, reader.PerLayer("sep_cache_size", 1));
  KVASIR_ASSIGN_OR_RETURN(Settings local, reader.PerLayer("local_size", 1));
  KVASIR_ASSIGN_OR_RETURN(Settings cache, reader.PerLayer("cache_size", 1));
  SepStreamPolicyConfig base;
  KVASIR_ASSIGN_OR_RETURN(base.stream.accumulate, reader.Boolean("sep_accumulation"));
  KVASIR_ASSIGN_OR_RETURN(base.stream.use_max, reader.Boolean("use_max_sep_cache"));
  KVASIR_ASSIGN_OR_RETURN(base.stream.separators, reader.Separators());
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
      GroupLayers({init, sep, local, cache}, context.layers, [&](const Settings& s) {
        SepStreamPolicyConfig config = base;
        config.stream.a = static_cast<int64_t>(s[0]);
        config.stream.s = static_cast<int64_t>(s[1]);
        config.stream.w = static_cast<int64_t>(s[2]);
        config.stream.c = static_cast<int64_t>(s[3]);
        return std::make_unique<SepStreamPolicy>(std::move(config));
      });
  lanes.positions = base.in_cache ? PositionMode::kInCache : PositionMode::kOriginal;
  return lanes;
}

absl::StatusOr<PolicyLanes> MakeSepLlm(Reader& reader) {
  KVASIR_ASSIGN_OR_RETURN(const std::string form, reader.Choice("form", reader.Value("form"),
                                                                {"static", "sepcache", "manager"}));
  return form == "static" ? MakeSepStatic(reader) : MakeSepStream(reader, form);
}

const std::vector<PolicyInfo>& List() {
  static const auto* list = new std::vector<PolicyInfo>{
      {"full", "every token stays", "", {}, "nothing", true},
      {"streamingllm",
       "the first tokens and the most recent ones",
       "StreamingLLM, arXiv 2309.17453",
       {{"start_size", "integer", "4", kCountFromZeroBounds, "initial tokens that stay", true},
        {"recent_size", "integer", "512", kCountBounds,
         "most recent tokens that are visible, the query's own included", true},
        {"positions", "choice", "in_cache", "original, in_cache",
         "positions of keys: of the text, or indices in the cache", false}},
       "positions=in_cache: a second rotation of the query",
       true},
      {"sepllm",
       "the first tokens, the separators and the most recent tokens",
       "SepLLM, arXiv 2412.12094",
       {{"form", "choice", "static", "static, sepcache, manager",
         "static: all separators stay; sepcache, manager: bounded cache, compacted when it is full "
         "(as the SepCache class, as the paper's cache manager)",
         false},
        {"init_cache_size", "integer", "4", kCountFromZeroBounds, "initial tokens that stay", true},
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
        {"positions", "choice", "", "original, in_cache",
         "positions of keys; default: original for static (no other) and sepcache, in_cache for "
         "manager",
         false}},
       "separator ids of the model, or separators=; positions=in_cache: the query rotated at up to "
       "three positions",
       true}};
  return *list;
}

absl::Status CheckSpec(const PolicySpec& spec, const PolicyInfo& info, const std::string& dtype) {
  for (const auto& [key, value] : spec.parameters) {
    std::string known;
    bool found = false;
    for (const PolicyParameterInfo& parameter : info.parameters) {
      found = found || parameter.name == key;
      known += (known.empty() ? "" : ",") + parameter.name;
    }
    if (!found) {
      return InvalidArgument("unknown parameter of policy {}: parameter={} known={}", info.name,
                             key, known.empty() ? "none" : known);
    }
  }
  if (spec.encoding.empty() || spec.encoding == "as_written" || spec.encoding == dtype) {
    return absl::OkStatus();
  }
  return InvalidArgument("unknown encoding: encoding={} known=as_written{}{}", spec.encoding,
                         dtype.empty() ? "" : ",", dtype);
}

}  // namespace

const std::vector<PolicyInfo>& Policies() { return List(); }

absl::StatusOr<PolicyLanes> MakeLanes(std::string_view text, const PolicyContext& context) {
  if (context.layers < 1 || context.layers > kLayersMax) {
    return InvalidArgument("layer count out of bounds: layers={} min=1 max={}", context.layers,
                           kLayersMax);
  }
  KVASIR_ASSIGN_OR_RETURN(const PolicySpec spec, ParsePolicySpec(text));
  std::string names;
  for (const PolicyInfo& info : Policies()) {
    names += (names.empty() ? "" : ",") + info.name;
    if (info.name != spec.name) continue;
    KVASIR_RETURN_IF_ERROR(CheckSpec(spec, info, context.dtype));
    Reader reader(spec, info, context);
    absl::StatusOr<PolicyLanes> lanes = spec.name == "full"           ? MakeFull(reader)
                                        : spec.name == "streamingllm" ? MakeStreamingLlm(reader)
                                                                      : MakeSepLlm(reader);
    if (lanes.ok()) lanes->spec = reader.Canonical();
    return lanes;
  }
  return InvalidArgument("unknown policy: policy={} known={}", spec.name, names);
}

}  // namespace kvasir
