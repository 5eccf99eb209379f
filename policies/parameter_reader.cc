#include "policies/parameter_reader.h"

#include <system_error>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir {

absl::Status CheckParameters(const PolicyTerm& term, const PolicyInfo& info,
                             std::string_view what) {
  for (const auto& [key, value] : term.parameters) {
    std::string known;
    bool found = false;
    for (const PolicyParameterInfo& parameter : info.parameters) {
      found = found || parameter.name == key;
      known += (known.empty() ? "" : ",") + parameter.name;
    }
    if (!found) {
      return InvalidArgument("unknown parameter of {} {}: parameter={} known={}", what, info.name,
                             key, known);
    }
  }
  return absl::OkStatus();
}

std::string_view ParameterReader::Value(std::string_view key) const {
  for (const auto& [name, value] : term_.parameters) {
    if (name == key) return value;
  }
  for (const PolicyParameterInfo& parameter : info_.parameters) {
    if (parameter.name == key) return parameter.default_value;
  }
  return {};
}

bool ParameterReader::Given(std::string_view key) const {
  return std::any_of(term_.parameters.begin(), term_.parameters.end(),
                     [&](const auto& parameter) { return parameter.first == key; });
}

absl::StatusOr<std::vector<uint64_t>> ParameterReader::PerLayerOf(std::string_view key,
                                                                  std::string_view value,
                                                                  uint64_t min) {
  KVASIR_ASSIGN_OR_RETURN(std::vector<uint64_t> values,
                          ParsePerLayer(key, value, min, kRowsMax, context_.layers));
  Write(key, FormatPerLayer(values));
  return values;
}

absl::StatusOr<uint64_t> ParameterReader::IntegerOf(std::string_view key, std::string_view value,
                                                    uint64_t min, uint64_t max) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t number, ParseInteger(key, value, min, max));
  Write(key, fmt::format("{}", number));
  return number;
}

absl::StatusOr<uint32_t> ParameterReader::Kernel(std::string_view key) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t kernel, Integer(key, 1, kKernelMax));
  if (kernel % 2 == 0) return InvalidArgument("{} must be odd: value={}", key, kernel);
  return static_cast<uint32_t>(kernel);
}

absl::StatusOr<double> ParameterReader::Fraction(std::string_view key) {
  KVASIR_ASSIGN_OR_RETURN(const double number, ParseFraction(key, Value(key)));
  Write(key, fmt::format("{}", number));
  return number;
}

absl::StatusOr<uint32_t> ParameterReader::Bits(std::string_view key, uint32_t fraction) {
  const std::string_view value = Value(key);
  double bits = 0;
  const char* end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, bits);
  const bool in_bounds = bits >= 0.5 && bits <= 6;  // false for what is not a number
  const double parts = in_bounds ? bits * fraction : 0;
  if (result.ec != std::errc() || result.ptr != end || !in_bounds || parts != std::floor(parts)) {
    return InvalidArgument("{} must be a number of 1/{} bits within bounds: value={} min=0.5 max=6",
                           key, fraction, value);
  }
  Write(key, fmt::format("{}", bits));
  return static_cast<uint32_t>(parts);
}

absl::StatusOr<bool> ParameterReader::Boolean(std::string_view key) {
  KVASIR_ASSIGN_OR_RETURN(const bool value, ParseBoolean(key, Value(key)));
  Write(key, value ? "true" : "false");
  return value;
}

absl::StatusOr<std::string> ParameterReader::Choice(std::string_view key, std::string_view value,
                                                    const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) == known.end()) {
    return InvalidArgument("{} is unknown: value={} known={}", key, value,
                           fmt::format("{}", fmt::join(known, ",")));
  }
  Write(key, value);
  return std::string(value);
}

absl::StatusOr<SeparatorSet> ParameterReader::Separators(std::string_view key) {
  std::vector<TokenId> ids = context_.separators;
  if (Given(key)) {
    KVASIR_ASSIGN_OR_RETURN(ids, ParseTokenIds(key, Value(key)));
  }
  if (ids.empty()) {
    return InvalidArgument("separators are needed: the model names none, give {}=ID/ID/...", key);
  }
  Write(key, FormatTokenIds(ids));
  return SeparatorSet(std::move(ids));
}

absl::StatusOr<PositionMode> ParameterReader::Positions(bool in_cache) {
  std::vector<std::string> known = {"original", "unrotated"};
  if (in_cache) known.insert(known.begin() + 1, "in_cache");
  const std::string_view value = Value("positions").empty() ? "original" : Value("positions");
  KVASIR_ASSIGN_OR_RETURN(const std::string chosen, Choice("positions", value, known));
  if (chosen == "unrotated") return PositionMode::kUnrotated;
  return chosen == "in_cache" ? PositionMode::kInCache : PositionMode::kOriginal;
}

absl::Status ParameterReader::Refuse(std::string_view key, std::string_view what) const {
  if (!Given(key)) return absl::OkStatus();
  return InvalidArgument("{} does not apply to {}", key, what);
}

std::string ParameterReader::Canonical() const {
  return text_.empty() ? term_.name : fmt::format("{}:{}", term_.name, text_);
}

void ParameterReader::Write(std::string_view key, std::string_view value) {
  text_ += fmt::format("{}{}={}", text_.empty() ? "" : ",", key, value);
}

PolicyLanes GroupLayers(const std::vector<LayerSettings>& columns, uint32_t layers,
                        const LaneMaker& make) {
  PolicyLanes result;
  std::map<LayerSettings, uint32_t> lane_of;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    LayerSettings settings;
    for (const LayerSettings& column : columns) settings.push_back(column[layer]);
    const auto next = static_cast<uint32_t>(result.lanes.size());
    const auto [found, added] = lane_of.try_emplace(settings, next);
    if (added) result.lanes.push_back(make(settings));
    result.lane_of_layer.push_back(found->second);
  }
  return result;
}

PolicyParameterInfo PositionsParameter() {
  return {"positions",
          "choice",
          "original",
          "original, unrotated",
          "original: keys are stored rotated at the row; unrotated: as before rotation, rotated at "
          "each read",
          false};
}

}  // namespace kvasir
