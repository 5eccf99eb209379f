// A ladder: what becomes of a cached prefix of every row as written, one rung after the other,
// while memory is scarce and before it is given up: {"full+int8", "sepllm:local_size=256"}. A rung
// is a policy spec.
//
// Pure functions; thread-safe.
#ifndef KVASIR_POLICIES_DEGRADE_LADDER_H_
#define KVASIR_POLICIES_DEGRADE_LADDER_H_

#include <span>
#include <string>

#include <absl/status/status.h>

#include "policies/policy_definition.h"

namespace kvasir {

// Every row stays, in every lane. REQUIRES: there are lanes.
bool KeepsAllRows(const PolicyLanes& lanes);

// Rows of a stream can be brought into what `lanes` make of them by who has the rows alone: no
// query, no report of an engine decides. Errors: kInvalidArgument naming what would be needed.
absl::Status CheckCondenses(const PolicyLanes& lanes);

// Each rung leaves less than the one before: first every row encoded, then some rows. Rows are
// encoded once, so that at most one rung encodes. Errors: kInvalidArgument naming the rung, from 0,
// and the bound.
absl::Status CheckDegradeLadder(std::span<const std::string> rungs);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_DEGRADE_LADDER_H_
