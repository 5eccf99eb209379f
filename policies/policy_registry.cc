#include "policies/policy_registry.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/encoded_policy.h"
#include "policies/encoding_spec.h"
#include "policies/parameter_reader.h"
#include "policies/policy_spec.h"
#include "policies/stay_rules.h"

#include <fmt/format.h>

// The list of policies, in the order people should read them: one line for each. A line NAME
// stands for `PolicyDefinition NAMEDefinition()`, which the policy's file pair exports.
#define KVASIR_POLICIES(POLICY) \
  POLICY(Full)                  \
  POLICY(StreamingLlm)          \
  POLICY(SepLlm)                \
  POLICY(FixLlm)                \
  POLICY(Window)                \
  POLICY(H2o)                   \
  POLICY(Tova)                  \
  POLICY(SnapKv)                \
  POLICY(Knorm)                 \
  POLICY(KeyDiff)               \
  POLICY(GemFilter)             \
  POLICY(InfLlm)

namespace kvasir {

#define KVASIR_DECLARE_(Name) PolicyDefinition Name##Definition();
KVASIR_POLICIES(KVASIR_DECLARE_)
#undef KVASIR_DECLARE_

namespace {

constexpr uint64_t kLayersMax = 1u << 16;

const std::vector<PolicyDefinition>& Definitions() {
#define KVASIR_CALL_(Name) Name##Definition(),
  static const auto* list = new std::vector<PolicyDefinition>{KVASIR_POLICIES(KVASIR_CALL_)};
#undef KVASIR_CALL_
  return *list;
}

const std::vector<RuleDefinition>& RuleDefinitions() {
  static const auto* list = new std::vector<RuleDefinition>{
      SinksDefinition(),
      SeparatorsDefinition(),
      StrideDefinition(),
  };
  return *list;
}

template <typename Definition>
std::vector<PolicyInfo>* InfosOf(const std::vector<Definition>& definitions) {
  auto* infos = new std::vector<PolicyInfo>;
  for (const Definition& definition : definitions) infos->push_back(definition.info);
  return infos;
}

template <typename Definition>
absl::StatusOr<const Definition*> Find(const std::vector<Definition>& definitions,
                                       std::string_view what, const std::string& name) {
  std::string names;
  for (const Definition& definition : definitions) {
    if (definition.info.name == name) return &definition;
    names += (names.empty() ? "" : ",") + definition.info.name;
  }
  return InvalidArgument("unknown {0}: {0}={1} known={2}", what, name, names);
}

// Gives lanes the plans that make records of their window, or that end where kept rows fill one.
void EncodeLanes(const EncodingSpec& encoding, PolicyLanes& lanes) {
  for (std::unique_ptr<RetentionPolicy>& lane : lanes.lanes) {
    const Encodable encodable = lane->encodable();
    if (encodable.rows == EncodableRows::kKept) lane->EncodeKept(encoding.rows, encoding.n_sink);
    if (encodable.rows != EncodableRows::kWindow) continue;
    const uint64_t sinks = encodable.KeepsAll() ? encoding.n_sink : encodable.staying;
    lane = std::make_unique<EncodedPolicy>(
        std::move(lane), EncodedPolicyConfig{encoding.rows, encoding.recent, sinks});
  }
}

// Resolves the encoding of a spec; `lanes` are those of its policy.
absl::Status ApplyEncoding(const PolicyTerm& term, const PolicyContext& context,
                           std::string_view policy, PolicyLanes& lanes) {
  std::string canonical;
  // A selection begins again from row 0, which a record would forbid.
  const bool fixed =
      lanes.retrieval || lanes.selection || lanes.positions == PositionMode::kUnrotated;
  const Encodable encodable = fixed ? Encodable{} : lanes.lanes.front()->encodable();
  KVASIR_ASSIGN_OR_RETURN(lanes.encoding, MakeEncoding(term, context, encodable, &canonical));
  if (!lanes.encoding) return absl::OkStatus();
  if (encodable.rows == EncodableRows::kNone) {
    return InvalidArgument(
        "rows of this policy cannot be encoded: policy={} encoding={} needs=rotated keys, and rows "
        "that are neither selected nor retrieved",
        policy, term.name);
  }
  const bool one_by_one = lanes.encoding->v_row_bits > 0;
  if (one_by_one != (encodable.rows == EncodableRows::kOneByOne)) {
    return InvalidArgument(
        "rows of this policy {} be encoded one by one: policy={} encoding={} known={}",
        one_by_one ? "need not" : "can only", policy, term.name,
        one_by_one ? "int8,int4,tm64,tm32" : "as_written/rot3,as_written/rot2");
  }
  EncodeLanes(*lanes.encoding, lanes);
  lanes.spec += "+" + canonical;
  return absl::OkStatus();
}

// What the rules of a spec keep together; adds their canonical text, each with a '|' after it.
absl::StatusOr<std::shared_ptr<const StayRule>> MakeRules(const std::vector<PolicyTerm>& terms,
                                                          const PolicyContext& context,
                                                          std::string* canonical) {
  std::vector<std::shared_ptr<const StayRule>> rules;
  for (const PolicyTerm& term : terms) {
    KVASIR_ASSIGN_OR_RETURN(const RuleDefinition* definition,
                            Find(RuleDefinitions(), "rule", term.name));
    KVASIR_RETURN_IF_ERROR(CheckParameters(term, definition->info, "rule"));
    ParameterReader reader(term, definition->info, context);
    KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<const StayRule> rule, definition->make(reader));
    rules.push_back(std::move(rule));
    *canonical += reader.Canonical() + "|";
  }
  return AnyOf(std::move(rules));
}

}  // namespace

const std::vector<PolicyInfo>& Policies() {
  static const std::vector<PolicyInfo>* infos = InfosOf(Definitions());
  return *infos;
}

const std::vector<PolicyInfo>& StayRules() {
  static const std::vector<PolicyInfo>* infos = InfosOf(RuleDefinitions());
  return *infos;
}

absl::StatusOr<PolicyLanes> MakeLanes(std::string_view text, const PolicyContext& context) {
  if (context.layers < 1 || context.layers > kLayersMax) {
    return InvalidArgument("layer count out of bounds: layers={} min=1 max={}", context.layers,
                           kLayersMax);
  }
  KVASIR_ASSIGN_OR_RETURN(const PolicySpec spec, ParsePolicySpec(text));
  KVASIR_ASSIGN_OR_RETURN(const PolicyDefinition* definition,
                          Find(Definitions(), "policy", spec.policy.name));
  KVASIR_RETURN_IF_ERROR(CheckParameters(spec.policy, definition->info, "policy"));
  if (!spec.rules.empty() && !definition->info.accepts_rules) {
    std::string known;
    for (const PolicyInfo& info : Policies()) {
      if (info.accepts_rules) known += (known.empty() ? "" : ",") + info.name;
    }
    return InvalidArgument("policy takes no rules before it: policy={} rule={} known={}",
                           spec.policy.name, spec.rules.front().name, known);
  }
  std::string canonical;
  KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<const StayRule> rules,
                          MakeRules(spec.rules, context, &canonical));
  ParameterReader reader(spec.policy, definition->info, context, std::move(rules));
  KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, definition->make(reader));
  lanes.spec = canonical + reader.Canonical();
  lanes.shareable = definition->info.shareable;
  if (spec.encoding) {
    KVASIR_RETURN_IF_ERROR(ApplyEncoding(*spec.encoding, context, spec.policy.name, lanes));
  }
  if (lanes.spec.size() > kSpecBytesMax) {
    return InvalidArgument("policy spec with every default is too long: bytes={} max={}",
                           lanes.spec.size(), kSpecBytesMax);
  }
  return lanes;
}

absl::Status CheckPolicySpec(std::string_view text) { return MakeLanesOfSomeModel(text).status(); }

absl::StatusOr<PolicyLanes> MakeLanesOfSomeModel(std::string_view text) {
  KVASIR_ASSIGN_OR_RETURN(const PolicySpec spec, ParsePolicySpec(text));
  KVASIR_ASSIGN_OR_RETURN(const PolicyDefinition* definition,
                          Find(Definitions(), "policy", spec.policy.name));
  PolicyContext context;
  context.layers = kLayersMax;
  context.separators = {0};
  context.prompt_rows = 1;
  context.profile = std::nullopt;
  for (const PolicyParameterInfo& parameter : definition->info.parameters) {
    for (const auto& [key, value] : spec.policy.parameters) {
      if (!parameter.per_layer || key != parameter.name) continue;
      KVASIR_ASSIGN_OR_RETURN(const uint64_t entries, CountPerLayer(key, value));
      if (entries > 0) context.layers = static_cast<uint32_t>(std::min(entries, kLayersMax + 1));
    }
  }
  return MakeLanes(text, context);
}

}  // namespace kvasir
