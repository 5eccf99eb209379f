// Random: the numbers that decide everything in a simulated world. Equal seeds give equal numbers
// on every machine and with every library.
#ifndef KVASIR_TESTS_SIM_RANDOM_H_
#define KVASIR_TESTS_SIM_RANDOM_H_

#include <cstdint>

namespace kvasir::sim {

// Mixes all bits of `value` into all bits of the result; a bijection. Source: Vigna, splitmix64.
constexpr uint64_t Mixed(uint64_t value) {
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(Mixed(seed)) {}

  uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15U;
    return Mixed(state_);
  }
  // Below `bound`, which is not 0. The bias of a small bound is beyond what anybody could see.
  uint64_t Below(uint64_t bound) { return Next() % bound; }
  uint32_t Below32(uint32_t bound) { return static_cast<uint32_t>(Next() % bound); }
  bool OneIn(uint64_t bound) { return Below(bound) == 0; }

 private:
  uint64_t state_;
};

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_RANDOM_H_
