// A retention plan as bytes: one that a policy has returned and that no table shows yet is part of
// a saved lane, beside the policy's own state.
//
// Pure functions; thread-safe. Cost: O(size of the plan).
#ifndef KVASIR_POLICIES_PLAN_STATE_H_
#define KVASIR_POLICIES_PLAN_STATE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

#include "policies/retention_policy.h"

namespace kvasir {

// Bytes: about 180, and 4 for each row dropped, 16 for each one moved, 24 for each span, 8 for each
// sticky row, 4 for each entry of a keep set.
std::string SavePlan(const RetentionPlan& plan);

// What SavePlan() gave, for a lane of `rows` rows. The bytes may be a stranger's: every field is
// checked by itself and against the others, and no row is above `rows`; whether the plan fits the
// table before it is for who carries it out. Errors: kDataLoss for what is cut, damaged or
// contradicts itself, kInvalidArgument for another version.
absl::StatusOr<RetentionPlan> LoadPlan(std::string_view bytes, uint64_t rows);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_PLAN_STATE_H_
