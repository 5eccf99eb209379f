#include "daemon/control/grpc_sleep.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include <grpc/support/time.h>

namespace kvasir {
namespace {

std::atomic<bool> g_bounded = false;
constexpr std::chrono::milliseconds kMost{1};

}  // namespace

void BoundGrpcSleep() { g_bounded = true; }

}  // namespace kvasir

// Instead of libgpr's.
extern "C" void gpr_sleep_until(gpr_timespec until) {
  const gpr_timespec left = ::gpr_time_sub(until, ::gpr_now(until.clock_type));
  const std::chrono::milliseconds time(std::max(0, ::gpr_time_to_millis(left)));
  std::this_thread::sleep_for(kvasir::g_bounded ? std::min(time, kvasir::kMost) : time);
}
