#include "policies/knorm.h"

#include "policies/key_policy.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeKnorm(ParameterReader& reader) {
  return MakeKeyPolicy(reader, ScoreSource::kKeyNorm);
}

}  // namespace

PolicyDefinition KnormDefinition() {
  return {KeyPolicyInfo("knorm", "tokens whose keys have the smallest norms",
                        "L2 norm strategy, arXiv 2406.11430"),
          MakeKnorm};
}

}  // namespace kvasir
