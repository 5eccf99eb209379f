// TimeShares: how much processor time the daemon spends on the calls and commands of each tenant.
//
// While others ask for anything, a tenant gets its share and no more: what it asks for beyond that
// waits, so that however much one asks for, the processors are free for the others' engines and for
// the daemon's work for them. Alone it gets all that it asks for.
//
// Thread-safe. Cost: a few atomic operations.
#ifndef KVASIR_DAEMON_TIME_SHARES_H_
#define KVASIR_DAEMON_TIME_SHARES_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace kvasir {

class TimeShares {
 public:
  // What may be spent at once before the share counts; and at most twice that is ever owed, beside
  // the piece that led there.
  static constexpr std::chrono::milliseconds kBurst{10};
  // Who asked for something so long ago is not there any more.
  static constexpr std::chrono::milliseconds kPresent{100};

  // `share` of one processor for each of so many callers: the tenants by their place, then others.
  // REQUIRES: share > 0.
  TimeShares(size_t callers, double share) : share_(share), paid_(callers) {}

  // So much processor time was spent on this caller until `now`.
  void Charge(size_t caller, Instant now, Instant::duration spent);
  // Nobody else has asked for anything for kPresent.
  bool IsAlone(size_t caller, Instant now) const { return AloneAt(caller) <= now; }
  // From when on more may be spent on it; `now` where it is at once.
  Instant ReadyAt(size_t caller, Instant now) const;

 private:
  using Ticks = Instant::rep;
  static Ticks TicksOf(Instant at) { return at.time_since_epoch().count(); }
  // `spent` in the time in which a share of it comes in.
  Ticks Stretched(Instant::duration spent) const {
    return static_cast<Ticks>(static_cast<double>(spent.count()) / share_);
  }
  // From when on nobody else is there, if none comes.
  Instant AloneAt(size_t caller) const;

  const double share_;
  std::vector<std::atomic<Ticks>> paid_;  // until when each has used up its share
  // Who was there last, and when somebody else was. Two threads that change both at once may leave
  // a pair that never was: then a share counts some milliseconds too early or too late.
  std::atomic<size_t> last_ = SIZE_MAX;
  std::atomic<Ticks> last_at_ = 0, other_at_ = 0;
};

// By the calling thread so far. Cost: a system call, 0.2 us.
Instant::duration ThreadTime();

}  // namespace kvasir

#endif  // KVASIR_DAEMON_TIME_SHARES_H_
