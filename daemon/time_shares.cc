#include "daemon/time_shares.h"

#include <algorithm>

#include <time.h>

namespace kvasir {

void TimeShares::Charge(size_t caller, Instant now, Instant::duration spent) {
  const Ticks at = TicksOf(now);
  const Ticks most = at + Stretched(2 * kBurst), more = Stretched(spent);
  std::atomic<Ticks>& paid = paid_[caller];
  Ticks before = paid.load(std::memory_order_relaxed);
  while (!paid.compare_exchange_weak(before, std::clamp(before, at, most) + more,
                                     std::memory_order_relaxed)) {
  }
  if (last_.load(std::memory_order_relaxed) != caller) {
    other_at_.store(last_at_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    last_.store(caller, std::memory_order_relaxed);
  }
  last_at_.store(at, std::memory_order_relaxed);
}

Instant TimeShares::AloneAt(size_t caller) const {
  const bool was_last = last_.load(std::memory_order_relaxed) == caller;
  const Ticks other = (was_last ? other_at_ : last_at_).load(std::memory_order_relaxed);
  return Instant(Instant::duration(other)) + kPresent;
}

Instant TimeShares::ReadyAt(size_t caller, Instant now) const {
  const Ticks paid = paid_[caller].load(std::memory_order_relaxed);
  const Instant ready(Instant::duration(paid - Stretched(kBurst)));
  return std::max(now, std::min(ready, AloneAt(caller)));
}

Instant::duration ThreadTime() {
  timespec time{};
  (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace kvasir
