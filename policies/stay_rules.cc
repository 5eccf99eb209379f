#include "policies/stay_rules.h"

#include <algorithm>

#include "base/status_macros.h"
#include "policies/parameter_reader.h"
#include "policies/policy_spec.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using MadeRule = absl::StatusOr<std::shared_ptr<const StayRule>>;

MadeRule MakeSinks(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t size, reader.Integer("size", 1, kRowsMax));
  return std::make_shared<SinksRule>(size);
}

MadeRule MakeSeparators(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(SeparatorSet separators, reader.Separators("ids"));
  return std::make_shared<SeparatorsRule>(std::move(separators));
}

MadeRule MakeStride(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t size, reader.Integer("size", 1, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t start, reader.Integer("start", 0, kRowsMax));
  return std::make_shared<StrideRule>(size, start);
}

}  // namespace

std::string SinksRule::Description() const { return fmt::format("rows {}..{}", first_, end_); }

std::string SeparatorsRule::Description() const {
  return "ids " + FormatTokenIds(separators_.ids());
}

std::string StrideRule::Description() const {
  return fmt::format("every {} from {}", stride_, start_);
}

std::string AnyOfRule::Description() const {
  std::string text = "any of";
  for (const auto& part : parts_) text += fmt::format(" ({})", part->Description());
  return text;
}

std::shared_ptr<const StayRule> AnyOf(std::vector<std::shared_ptr<const StayRule>> parts) {
  parts.erase(std::remove(parts.begin(), parts.end(), nullptr), parts.end());
  if (parts.empty()) return nullptr;
  if (parts.size() == 1) return parts.front();
  return std::make_shared<AnyOfRule>(std::move(parts));
}

RuleDefinition SinksDefinition() {
  return {{.name = "sinks",
           .summary = "the first tokens always stay",
           .source = "StreamingLLM, arXiv 2309.17453",
           .parameters = {{"size", "integer", "4", kCountBounds, "how many", false}},
           .needs = "",
           .shareable = true,
           .accepts_rules = false},
          MakeSinks};
}

RuleDefinition SeparatorsDefinition() {
  return {{.name = "separators",
           .summary = "separator tokens always stay",
           .source = "SepLLM, arXiv 2412.12094",
           .parameters = {{"ids", "list", "", "token ids separated by '/'",
                           "separator tokens; default: those of the model", false}},
           .needs = "separator ids of the model, or ids=",
           .shareable = true,
           .accepts_rules = false},
          MakeSeparators};
}

RuleDefinition StrideDefinition() {
  return {{.name = "stride",
           .summary = "the last token of every full run of `size` tokens always stays",
           .source = "FixLLM of SepLLM, arXiv 2412.12094",
           .parameters = {{"size", "integer", "5", kCountBounds, "length of a run", false},
                          {"start", "integer", "0", kCountFromZeroBounds,
                           "token at which the first run begins", false}},
           .needs = "",
           .shareable = true,
           .accepts_rules = false},
          MakeStride};
}

}  // namespace kvasir
