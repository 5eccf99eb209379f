// The one grammar in which a policy is named (command line, configuration, RPC):
//   spec      = {rule "|"} policy ["+" encoding]
//   encoding  = name ["/" name] [":" key "=" value {"," key "=" value}]
//   rule, policy = name [":" key "=" value {"," key "=" value}]
//   value     = text without any of ",:+=|"; a per-layer list is "128/256/64" or, with repetition,
//               "128x15/256x15"
// e.g. "sepllm:init_cache_size=4,local_size=256", "sinks:size=4|separators|window:size=256". Which
// names and keys exist is the registry's matter.
//
// Pure functions; thread-safe. Cost: O(length). Errors: kInvalidArgument, naming key and bound.
#ifndef KVASIR_POLICIES_POLICY_SPEC_H_
#define KVASIR_POLICIES_POLICY_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/retention_policy.h"

namespace kvasir {

inline constexpr size_t kSpecBytesMax = 4096;

struct PolicyTerm {
  std::string name;
  std::vector<std::pair<std::string, std::string>> parameters;  // as written, keys unique
};

struct PolicySpec {
  std::vector<PolicyTerm> rules;  // in the order written, names unique
  PolicyTerm policy;
  std::optional<PolicyTerm> encoding;  // after '+'; its name may be two, with a '/' between
};

absl::StatusOr<PolicySpec> ParsePolicySpec(std::string_view text);

// The part of a spec before its encoding.
inline std::string_view WithoutEncoding(std::string_view text) {
  return text.substr(0, text.find('+'));
}

// A decimal number in [min, max].
absl::StatusOr<uint64_t> ParseInteger(std::string_view key, std::string_view value, uint64_t min,
                                      uint64_t max);

// A decimal number above 0 and at most 1.
absl::StatusOr<double> ParseFraction(std::string_view key, std::string_view value);

// "true" or "false".
absl::StatusOr<bool> ParseBoolean(std::string_view key, std::string_view value);

// One entry for each layer; a single number stands for all of them.
absl::StatusOr<std::vector<uint64_t>> ParsePerLayer(std::string_view key, std::string_view value,
                                                    uint64_t min, uint64_t max, size_t layers);

// Entries of a per-layer list; 0 for a single number, which fits any number of layers.
absl::StatusOr<uint64_t> CountPerLayer(std::string_view key, std::string_view value);

// Token ids separated by '/'.
absl::StatusOr<std::vector<TokenId>> ParseTokenIds(std::string_view key, std::string_view value);

// Shortest text that ParsePerLayer reads back: "256", or "128x15/256x15".
std::string FormatPerLayer(const std::vector<uint64_t>& values);
std::string FormatTokenIds(const std::vector<TokenId>& ids);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_POLICY_SPEC_H_
