// v1::ModelSpec <-> core::ModelDescription. Checks enums; bounds are checked by
// core::Model::Create().
#ifndef KVASIR_DAEMON_CONTROL_MODEL_CONVERT_H_
#define KVASIR_DAEMON_CONTROL_MODEL_CONVERT_H_

#include <absl/status/statusor.h>

#include "daemon/core/model.h"
#include "kvasir/v1/types.pb.h"

namespace kvasir {

// Errors: kInvalidArgument naming the field.
absl::StatusOr<core::ModelDescription> ToModelDescription(const v1::ModelSpec& spec);

// ENSURES: ToModelDescription() of it is `model` again.
v1::ModelSpec ToModelSpec(const core::ModelDescription& model);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_MODEL_CONVERT_H_
