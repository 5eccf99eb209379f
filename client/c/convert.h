// From the structs of kvasir.h to the values of the C++ client, and errors back. Private to
// client/c/. Errors: kInvalidArgument naming the field.
#ifndef KVASIR_CLIENT_C_CONVERT_H_
#define KVASIR_CLIENT_C_CONVERT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/c/kvasir.h"
#include "client/session.h"

namespace kvasir::c {

// Writes the status into `error`, which may be null.
kvasir_code Answer(const absl::Status& status, kvasir_error* error);

// Each takes the struct as this library knows it: what the caller's header does not have is zero,
// and what it has more is not looked at.
absl::StatusOr<ConnectOptions> ToConnectOptions(const kvasir_connect_options* given);
absl::StatusOr<ModelSpec> ToModelSpec(const kvasir_model_spec* given);
absl::StatusOr<ModelHandle> ToModel(const kvasir_model* given);
absl::StatusOr<PrefixOptions> ToPrompt(const kvasir_prompt* given);
absl::StatusOr<OpenOptions> ToOpenOptions(const kvasir_open_options* given);

}  // namespace kvasir::c

#endif  // KVASIR_CLIENT_C_CONVERT_H_
