// What Knorm and KeyDiff share: retention by a score of the keys alone. The daemon computes it from
// the stored keys; the engine provides nothing.
//
// Where the length of the prompt is known one decision is made, at its end, as the papers do; else
// one each evict_interval tokens.
#ifndef KVASIR_POLICIES_KEY_POLICY_H_
#define KVASIR_POLICIES_KEY_POLICY_H_

#include <string>

#include <absl/status/statusor.h>

#include "policies/parameter_reader.h"
#include "policies/policy_definition.h"
#include "policies/retention_policy.h"

namespace kvasir {

absl::StatusOr<PolicyLanes> MakeKeyPolicy(ParameterReader& reader, ScoreSource source);

PolicyInfo KeyPolicyInfo(std::string name, std::string summary, std::string source);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_KEY_POLICY_H_
