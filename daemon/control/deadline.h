// Until when a call may wait.
#ifndef KVASIR_DAEMON_CONTROL_DEADLINE_H_
#define KVASIR_DAEMON_CONTROL_DEADLINE_H_

#include <algorithm>
#include <chrono>

#include <grpcpp/server_context.h>

#include "base/clock.h"

#include <grpc/support/time.h>

namespace kvasir {

// The earlier of the call's deadline and the bound.
template <typename Context>  // of gRPC's servers
Instant WaitDeadline(const Context& context, std::chrono::milliseconds bound) {
  // Not context.deadline(): that is told by the wall clock, which may jump between two looks at it.
  const gpr_timespec left =
      ::gpr_time_sub(::gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC),
                     ::gpr_now(GPR_CLOCK_MONOTONIC));
  const std::chrono::milliseconds left_ms(std::max(0, ::gpr_time_to_millis(left)));
  return SystemClock().Now() + std::min(bound, left_ms);
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_DEADLINE_H_
