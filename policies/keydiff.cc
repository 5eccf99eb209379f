#include "policies/keydiff.h"

#include "policies/key_policy.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeKeyDiff(ParameterReader& reader) {
  return MakeKeyPolicy(reader, ScoreSource::kKeyDifference);
}

}  // namespace

PolicyDefinition KeyDiffDefinition() {
  return {
      KeyPolicyInfo("keydiff", "tokens whose keys differ most from the mean direction of all keys",
                    "KeyDiff, arXiv 2504.15364"),
      MakeKeyDiff};
}

}  // namespace kvasir
