// A key row turned by factors that are known: the arithmetic of GatherRotateRows(), which vector
// code, plain code, devices and their stand-ins share, so that all of them make the same bits.
//
// Of the two products of an element one is rounded, and added to the other without a rounding in
// between: what a fused multiply-add does. Pure functions; rows at any address.
#ifndef KVASIR_KERNELS_TURN_ROW_H_
#define KVASIR_KERNELS_TURN_ROW_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/gather.h"
#include "kernels/host_device.h"
#include "kernels/row_convert.h"

namespace kvasir::kernels {

// Turns the pair (a, b).
KVASIR_HOST_DEVICE inline void TurnPair(RopePairing pairing, float cosine, float sine, float& a,
                                        float& b) {
  const float x = a;
  const float y = b;
  // As the vector code has it: the processor's own operation for pairs that lie side by side
  // subtracts the rounded product, that for halves adds to it.
  if (pairing == RopePairing::kInterleaved) {
    a = std::fma(x, cosine, -(y * sine));
    b = std::fma(y, cosine, x * sine);
  } else {
    a = std::fma(-y, sine, x * cosine);
    b = std::fma(x, sine, y * cosine);
  }
}

// Copies a row [kv_head][head_dim] and turns it. `factors` are those of a delta, of MakeTurns().
// `from` and `to` do not overlap.
inline void TurnRow(const RopeShape& shape, const float* factors, const std::byte* from,
                    std::byte* to) {
  const size_t head_bytes = shape.head_dim * ElementBytes(shape.type);
  const size_t pairs = shape.rotated_dims / 2;
  const bool interleaved = shape.pairing == RopePairing::kInterleaved;
  for (uint32_t head = 0; head < shape.kv_heads; ++head, from += head_bytes, to += head_bytes) {
    std::memcpy(to, from, head_bytes);
    for (size_t pair = 0; pair < pairs; ++pair) {
      const size_t first = interleaved ? pair * 2 : pair;
      const size_t second = interleaved ? pair * 2 + 1 : pair + pairs;
      float a = LoadElement(shape.type, to, first);
      float b = LoadElement(shape.type, to, second);
      TurnPair(shape.pairing, factors[pair], factors[pairs + pair], a, b);
      StoreElement(shape.type, to, first, a);
      StoreElement(shape.type, to, second, b);
    }
  }
}

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_TURN_ROW_H_
