// Reads the profiles of models from a folder: what `kvasir-generate --profile` has written.
#ifndef KVASIR_DAEMON_PROFILES_H_
#define KVASIR_DAEMON_PROFILES_H_

#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "daemon/core/model_profile.h"

namespace kvasir {

// Every file of `folder` (not below it) whose name ends in .json, in the order of their names; ""
// has none. Blocks; called once at start.
// Errors: what open(2) and read(2) say, with the path; kInvalidArgument naming file, field and
// bound, and where two are of the same weights.
absl::StatusOr<std::vector<std::shared_ptr<const core::ModelProfile>>> LoadProfiles(
    const std::string& folder);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_PROFILES_H_
