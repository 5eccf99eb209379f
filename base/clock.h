// Clock: the only way that code below the process's main asks for the time, so that tests set it.
#ifndef KVASIR_BASE_CLOCK_H_
#define KVASIR_BASE_CLOCK_H_

#include <chrono>

namespace kvasir {

using Instant = std::chrono::steady_clock::time_point;

// Thread-safe. Time never goes back.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() const = 0;
};

// CLOCK_MONOTONIC; lives as long as the process.
const Clock& SystemClock();

}  // namespace kvasir

#endif  // KVASIR_BASE_CLOCK_H_
