// Until when a call may wait.
#ifndef KVASIR_DAEMON_CONTROL_DEADLINE_H_
#define KVASIR_DAEMON_CONTROL_DEADLINE_H_

#include <algorithm>
#include <chrono>

#include <grpcpp/server_context.h>

#include "base/clock.h"

namespace kvasir {

// The earlier of the call's deadline and the bound.
inline Instant WaitDeadline(const grpc::ServerContext& context, std::chrono::milliseconds bound) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  return std::chrono::steady_clock::now() +
         std::min<std::chrono::steady_clock::duration>(
             bound, std::max(left, std::chrono::system_clock::duration::zero()));
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_DEADLINE_H_
