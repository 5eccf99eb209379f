// The list of retention policies and rules, and the way from a policy spec to the policies of a
// sequence.
//
// Pure functions; thread-safe. Errors: kInvalidArgument naming parameter and bound; an unknown name
// or parameter gets the list of the known ones.
#ifndef KVASIR_POLICIES_POLICY_REGISTRY_H_
#define KVASIR_POLICIES_POLICY_REGISTRY_H_

#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/policy_definition.h"

namespace kvasir {

// Every policy of this build, in the order people should read them.
const std::vector<PolicyInfo>& Policies();

// Every rule that may stand before a policy that accepts rules.
const std::vector<PolicyInfo>& StayRules();

// Cost: O(length of the spec + layers * log lanes).
absl::StatusOr<PolicyLanes> MakeLanes(std::string_view spec, const PolicyContext& context);

// Whether some model could take the spec, for configurations, where the model is not known yet: one
// with separators, a prompt, and as many layers as the spec's per-layer lists have entries (any
// number where it has none).
absl::Status CheckPolicySpec(std::string_view spec);
// The lanes of that model.
absl::StatusOr<PolicyLanes> MakeLanesOfSomeModel(std::string_view spec);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_POLICY_REGISTRY_H_
