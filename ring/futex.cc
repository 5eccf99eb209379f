#include "ring/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace kvasir::ring {

FutexWaited FutexWait(const shm::A32& word, uint32_t seen, std::chrono::nanoseconds at_most) {
  constexpr int64_t kSecond = 1'000'000'000;
  const timespec time_out{static_cast<time_t>(at_most.count() / kSecond),
                          static_cast<long>(at_most.count() % kSecond)};
  // Not FUTEX_PRIVATE_FLAG: the waker is another process.
  const long result = ::syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAIT,
                                seen, &time_out, nullptr, 0);
  return result != 0 && errno == ETIMEDOUT ? FutexWaited::kTimedOut : FutexWaited::kWoken;
}

void FutexWake(shm::A32& word) {
  (void)::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr,
                  nullptr, 0);
}

}  // namespace kvasir::ring
