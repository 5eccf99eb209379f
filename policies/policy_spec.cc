#include "policies/policy_spec.h"

#include <system_error>

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir {
namespace {

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

bool IsWord(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

bool IsPair(std::string_view text) {
  const size_t slash = text.find('/');
  return slash != std::string_view::npos && IsWord(text.substr(0, slash)) &&
         IsWord(text.substr(slash + 1));
}

absl::StatusOr<PolicyTerm> ParseTerm(std::string_view text, bool pair_allowed = false) {
  PolicyTerm term;
  const size_t colon = text.find(':');
  term.name = text.substr(0, colon);
  if (!IsWord(term.name) && !(pair_allowed && IsPair(term.name))) {
    return InvalidArgument("policy spec does not begin with a name of [a-z0-9_]: spec={}", text);
  }
  if (colon == std::string_view::npos) return term;
  for (const std::string_view part : Split(text.substr(colon + 1), ',')) {
    const size_t equals = part.find('=');
    const std::string key(part.substr(0, equals));
    if (equals == std::string_view::npos || !IsWord(key) || equals + 1 == part.size()) {
      return InvalidArgument("policy parameter is not key=value: parameter={}", part);
    }
    for (const auto& [known, value] : term.parameters) {
      if (known == key)
        return InvalidArgument("policy parameter is given twice: parameter={}", key);
    }
    term.parameters.emplace_back(key, part.substr(equals + 1));
  }
  return term;
}

constexpr uint64_t kRepetitionMax = 1u << 16;

// "128/256" or "128x15", not a single number.
bool IsList(std::string_view value) { return value.find_first_of("/x") != std::string_view::npos; }

// Entries of a list; those far behind `enough` are left out.
absl::StatusOr<std::vector<uint64_t>> ParseList(std::string_view key, std::string_view value,
                                                uint64_t min, uint64_t max, uint64_t enough) {
  std::vector<uint64_t> values;
  for (const std::string_view part : Split(value, '/')) {
    const size_t x = part.find('x');
    KVASIR_ASSIGN_OR_RETURN(const uint64_t number, ParseInteger(key, part.substr(0, x), min, max));
    uint64_t count = 1;
    if (x != std::string_view::npos) {
      const std::string repeats = fmt::format("repetition of {}", key);
      KVASIR_ASSIGN_OR_RETURN(count, ParseInteger(repeats, part.substr(x + 1), 1, kRepetitionMax));
    }
    values.insert(values.end(), count, number);
    if (values.size() > enough) break;
  }
  return values;
}

}  // namespace

absl::StatusOr<PolicySpec> ParsePolicySpec(std::string_view text) {
  if (text.size() > kSpecBytesMax) {
    return InvalidArgument("policy spec is too long: bytes={} max={}", text.size(), kSpecBytesMax);
  }
  PolicySpec spec;
  if (const size_t plus = text.find('+'); plus != std::string_view::npos) {
    if (plus + 1 == text.size()) return InvalidArgument("policy spec ends in '+': spec={}", text);
    KVASIR_ASSIGN_OR_RETURN(spec.encoding, ParseTerm(text.substr(plus + 1), /*pair_allowed=*/true));
    text = text.substr(0, plus);
  }
  std::vector<std::string_view> terms = Split(text, '|');
  KVASIR_ASSIGN_OR_RETURN(spec.policy, ParseTerm(terms.back()));
  terms.pop_back();
  for (const std::string_view part : terms) {
    KVASIR_ASSIGN_OR_RETURN(PolicyTerm rule, ParseTerm(part));
    for (const PolicyTerm& known : spec.rules) {
      if (known.name == rule.name) {
        return InvalidArgument("rule is given twice: rule={}", rule.name);
      }
    }
    spec.rules.push_back(std::move(rule));
  }
  return spec;
}

absl::StatusOr<uint64_t> ParseInteger(std::string_view key, std::string_view value, uint64_t min,
                                      uint64_t max) {
  uint64_t number = 0;
  const char* end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, number);
  if (result.ec != std::errc() || result.ptr != end || number < min || number > max) {
    return InvalidArgument("{} must be a whole number within bounds: value={} min={} max={}", key,
                           value, min, max);
  }
  return number;
}

absl::StatusOr<double> ParseFraction(std::string_view key, std::string_view value) {
  double number = 0;
  const char* end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, number);
  const bool in_bounds = number > 0 && number <= 1;  // false for what is not a number
  if (result.ec != std::errc() || result.ptr != end || !in_bounds) {
    return InvalidArgument("{} must be a number within bounds: value={} above=0 max=1", key, value);
  }
  return number;
}

absl::StatusOr<bool> ParseBoolean(std::string_view key, std::string_view value) {
  if (value == "true") return true;
  if (value == "false") return false;
  return InvalidArgument("{} must be true or false: value={}", key, value);
}

absl::StatusOr<std::vector<uint64_t>> ParsePerLayer(std::string_view key, std::string_view value,
                                                    uint64_t min, uint64_t max, size_t layers) {
  if (!IsList(value)) {
    KVASIR_ASSIGN_OR_RETURN(const uint64_t number, ParseInteger(key, value, min, max));
    return std::vector<uint64_t>(layers, number);
  }
  KVASIR_ASSIGN_OR_RETURN(std::vector<uint64_t> values,
                          ParseList(key, value, min, max, layers + kRepetitionMax));
  if (values.size() != layers) {
    return InvalidArgument("{} must have one entry a layer: entries={} layers={}", key,
                           values.size(), layers);
  }
  return values;
}

absl::StatusOr<uint64_t> CountPerLayer(std::string_view key, std::string_view value) {
  if (!IsList(value)) return 0;
  constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();
  KVASIR_ASSIGN_OR_RETURN(const std::vector<uint64_t> values,
                          ParseList(key, value, 0, kAny, kRepetitionMax));
  return values.size();
}

absl::StatusOr<std::vector<TokenId>> ParseTokenIds(std::string_view key, std::string_view value) {
  std::vector<TokenId> ids;
  for (const std::string_view part : Split(value, '/')) {
    KVASIR_ASSIGN_OR_RETURN(const uint64_t id,
                            ParseInteger(key, part, 0, std::numeric_limits<TokenId>::max()));
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

std::string FormatPerLayer(const std::vector<uint64_t>& values) {
  std::string text;
  for (size_t i = 0; i < values.size();) {
    size_t end = i;
    while (end < values.size() && values[end] == values[i]) ++end;
    if (i == 0 && end == values.size()) return fmt::format("{}", values[i]);
    text += fmt::format("{}{}", i == 0 ? "" : "/", values[i]);
    if (end - i > 1) text += fmt::format("x{}", end - i);
    i = end;
  }
  return text;
}

std::string FormatTokenIds(const std::vector<TokenId>& ids) {
  return fmt::format("{}", fmt::join(ids, "/"));
}

}  // namespace kvasir
