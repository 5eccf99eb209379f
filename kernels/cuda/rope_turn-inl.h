// The turn of one pair by a delta, from the tables of rope_table.h.
#ifndef KVASIR_KERNELS_CUDA_ROPE_TURN_INL_H_
#define KVASIR_KERNELS_CUDA_ROPE_TURN_INL_H_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/rope_table.h"

namespace kvasir::kernels::cuda {

struct Turn {
  float cosine;
  float sine;
};

// In this order of operations, each rounded: that of the CPU.
KVASIR_HOST_DEVICE inline Turn MultiplyTurns(Turn a, Turn b) {
  return {a.cosine * b.cosine - a.sine * b.sine, a.cosine * b.sine + a.sine * b.cosine};
}

KVASIR_HOST_DEVICE inline Turn TurnOf(const RopeTable& table, int64_t delta, uint32_t pair) {
  constexpr int64_t kLows = int64_t{1} << kRopeLowBits;
  constexpr int64_t kMiddles = int64_t{1} << kRopeMiddleBits;
  const int64_t base = delta >> kRopeLowBits;
  const int64_t high = base >> kRopeMiddleBits;
  const uint64_t step = uint64_t{2} * table.pairs;
  const auto entry = [&](int64_t index) {
    const float* at = table.entries + static_cast<uint64_t>(index) * step + pair;
    return Turn{at[0], at[table.pairs]};
  };
  Turn turn = {};
  if (high >= -table.highs && high < table.highs) {
    turn = entry(kLows + kMiddles + table.highs + high);
  } else {
    const double angle = static_cast<double>(high * kMiddles * kLows) * table.frequencies[pair];
    turn = {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
  }
  turn = MultiplyTurns(turn, entry(kLows + (base & (kMiddles - 1))));
  return MultiplyTurns(turn, entry(delta & (kLows - 1)));
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ROPE_TURN_INL_H_
