// PressureControl: how large the pool is to be while memory is short, and after. Pure: no clock, no
// lock, no I/O.
//
// Sizes change by eighths of the one that is wanted, down to one eighth. A step down begins at what
// is touched, since a size that nobody has filled gives the kernel nothing, and is larger where the
// cgroup is further above memory.high. The way back is one step for each quiet time; pressure that
// comes back within one of a step up doubles it, up to 16 times, so that the pool does not swing.
//
// Not thread-safe.
#ifndef KVASIR_DAEMON_PRESSURE_CONTROL_H_
#define KVASIR_DAEMON_PRESSURE_CONTROL_H_

#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace kvasir {

struct PressureState {
  uint64_t wanted_bytes = 0;       // size of the pool without pressure
  uint64_t pool_bytes = 0;         // size now
  uint64_t touched_bytes = 0;      // of it, in memory: charged and ready
  uint64_t cgroup_used_bytes = 0;  // memory.current
  uint64_t cgroup_high_bytes = 0;  // memory.high; 0: none
};

class PressureControl {
 public:
  explicit PressureControl(Instant::duration quiet) : quiet_(quiet), wait_(quiet) {}

  // The kernel tells of pressure. Decide() is asked next.
  void Told(Instant now);

  // The size that the pool should be given now; nothing: it stays. A step is taken as done.
  std::optional<uint64_t> Decide(Instant now, const PressureState& state);

  // When Decide() is to be asked though nothing is told; nothing: not before that.
  std::optional<Instant> next_look() const { return next_look_; }

  Instant::duration wait() const { return wait_; }  // the quiet time that holds now

 private:
  std::optional<uint64_t> Shrink(Instant now, const PressureState& state);
  std::optional<uint64_t> Grow(Instant now, const PressureState& state);

  const Instant::duration quiet_;
  Instant::duration wait_;
  bool pending_ = false;                   // told of, and not acted on yet
  Instant calm_since_;                     // of the last pressure, or of the last step up
  std::optional<Instant> shrunk_, grown_;  // when last
  std::optional<Instant> next_look_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_PRESSURE_CONTROL_H_
