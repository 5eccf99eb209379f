// CLOCK_REALTIME as a jump of it would have it: whoever reads it is told another time, and whoever
// waits for a time by it waits until that comes by what is told. The clock itself is not touched,
// nor CLOCK_MONOTONIC.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <cerrno>
#include <cstdarg>

#include "tests/faults/fault_layer.h"

#include <pthread.h>
#include <time.h>

namespace kvasir::testing {
namespace {

constexpr long kBillion = 1'000'000'000;
constexpr long kSliceNs = 20'000'000;
// Of glibc's condition variables: it waits by CLOCK_MONOTONIC.
constexpr unsigned kMonotonicMask = 2;

int RealClock(clockid_t clock, timespec* time) {
  static auto* const next = NextOf<int(clockid_t, timespec*)>("clock_gettime");
  return next(clock, time);
}

// What a reading of the wall clock is off by.
int64_t OffsetOfReading(bool may_be_restless) {
  FaultBoard* const board = BoardOfLayer();
  if (board == nullptr) return 0;
  const uint64_t reading = board->clock_readings++;
  const int64_t offset = board->clock_offset_s;
  return may_be_restless && board->clock_restless && reading % 2 == 1 ? -offset : offset;
}

bool IsWallClock(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

// The real time at which the told one will be `until`, or a little from now where that is earlier:
// the clock may jump meanwhile. `at_end`: it is `until`.
timespec NextSlice(const timespec& until, bool* at_end) {
  FaultBoard* const board = BoardOfLayer();
  const int64_t offset = board == nullptr ? 0 : board->clock_offset_s.load();
  timespec slice{};
  (void)RealClock(CLOCK_REALTIME, &slice);
  slice.tv_nsec += kSliceNs;
  if (slice.tv_nsec >= kBillion) {
    slice.tv_nsec -= kBillion;
    ++slice.tv_sec;
  }
  const timespec real = {.tv_sec = until.tv_sec - offset, .tv_nsec = until.tv_nsec};
  *at_end =
      real.tv_sec < slice.tv_sec || (real.tv_sec == slice.tv_sec && real.tv_nsec <= slice.tv_nsec);
  return *at_end ? real : slice;
}

// `wait` for a time by the wall clock; a slice that passes is a spurious wake-up.
template <typename Wait>
int WaitByWallClock(const timespec& until, const Wait& wait) {
  bool at_end = false;
  const timespec slice = NextSlice(until, &at_end);
  const int error = wait(slice);
  return error == ETIMEDOUT && !at_end ? 0 : error;
}

}  // namespace
}  // namespace kvasir::testing

using kvasir::testing::IsWallClock;
using kvasir::testing::NextOf;
using kvasir::testing::OffsetOfReading;
using kvasir::testing::RealClock;

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = RealClock(clock, time);
  if (result == 0 && IsWallClock(clock)) time->tv_sec += OffsetOfReading(true);
  return result;
}

int gettimeofday(timeval* time, void* zone) noexcept {
  static auto* const next = NextOf<int(timeval*, void*)>("gettimeofday");
  const int result = next(time, zone);
  if (result == 0) time->tv_sec += OffsetOfReading(false);
  return result;
}

time_t time(time_t* out) noexcept {
  timespec now{};
  (void)RealClock(CLOCK_REALTIME, &now);
  now.tv_sec += OffsetOfReading(false);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* until) {
  // There is an older one of this name, for conditions of another size.
  using Function = int(pthread_cond_t*, pthread_mutex_t*, const timespec*);
  static auto* const next =
      reinterpret_cast<Function*>(::dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2"));
  if ((condition->__data.__wrefs & kvasir::testing::kMonotonicMask) != 0) {
    return next(condition, mutex, until);
  }
  return kvasir::testing::WaitByWallClock(
      *until, [&](const timespec& slice) { return next(condition, mutex, &slice); });
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* until) {
  static auto* const next =
      NextOf<int(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*)>(
          "pthread_cond_clockwait");
  if (!IsWallClock(clock)) return next(condition, mutex, clock, until);
  return kvasir::testing::WaitByWallClock(
      *until, [&](const timespec& slice) { return next(condition, mutex, clock, &slice); });
}

// abseil waits by futexes of its own.
long syscall(long number, ...) noexcept {
  static auto* const next = NextOf<long(long, long, long, long, long, long, long)>("syscall");
  va_list arguments;
  va_start(arguments, number);
  long a[6];
  for (long& each : a) each = va_arg(arguments, long);
  va_end(arguments);
  const bool by_wall_clock = number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) != 0 &&
                             (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && a[3] != 0;
  if (!by_wall_clock) return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  bool at_end = false;
  timespec slice = kvasir::testing::NextSlice(*reinterpret_cast<const timespec*>(a[3]), &at_end);
  if (slice.tv_sec < 0) slice = {};  // long past
  const long result = next(number, a[0], a[1], a[2], reinterpret_cast<long>(&slice), a[4], a[5]);
  if (result < 0 && errno == ETIMEDOUT && !at_end) errno = EINTR;
  return result;
}

}  // extern "C"
