// absl::Status <-> grpc::Status: the only place. The codes are the same numbers on both sides.
#ifndef KVASIR_DAEMON_CONTROL_STATUS_CONVERT_H_
#define KVASIR_DAEMON_CONTROL_STATUS_CONVERT_H_

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include "base/error.h"

namespace kvasir {

inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), MessageOf(status)};
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_STATUS_CONVERT_H_
