// The list of retention policies, and the way from a policy spec to the policies of a sequence.
//
// Pure functions; thread-safe. Errors: kInvalidArgument naming parameter and bound; an unknown name
// or parameter gets the list of the known ones.
#ifndef KVASIR_POLICIES_POLICY_REGISTRY_H_
#define KVASIR_POLICIES_POLICY_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/retention_policy.h"

namespace kvasir {

struct PolicyParameterInfo {
  std::string name;
  std::string type;  // "integer", "list", "boolean", "choice"
  std::string default_value;
  std::string bounds;
  std::string description;
  bool per_layer = false;  // takes a list with one entry a layer
};

struct PolicyInfo {
  std::string name;
  std::string summary;
  std::string source;  // paper
  std::vector<PolicyParameterInfo> parameters;
  std::string needs;       // what the engine must provide beyond rows and table reading
  bool shareable = false;  // what is kept is a function of the tokens alone, so it may be shared
};

// Every policy of this build, in the order people should read them.
const std::vector<PolicyInfo>& Policies();

// What a spec is resolved against.
struct PolicyContext {
  uint32_t layers = 1;              // >= 1
  std::vector<TokenId> separators;  // the model's; empty: it names none
  uint64_t prompt_rows = 0;         // rows of the prefill, for policies that tell it apart
  std::optional<TokenId> pad_id;    // set only where prompts are padded (SepCache's offset)
  std::string dtype;                // e.g. "f16": also accepted as the encoding "as written"
};

enum class PositionMode { kOriginal, kInCache };

// A lane is the layers with equal settings: they share one policy.
struct PolicyLanes {
  std::vector<std::unique_ptr<RetentionPolicy>> lanes;
  std::vector<uint32_t> lane_of_layer;  // index into lanes, one entry a layer
  std::string spec;                     // in full, with every default; resolves to the same lanes
  PositionMode positions = PositionMode::kOriginal;
};

// Cost: O(length of the spec + layers * log lanes).
absl::StatusOr<PolicyLanes> MakeLanes(std::string_view spec, const PolicyContext& context);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_POLICY_REGISTRY_H_
