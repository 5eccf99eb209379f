// The pattern of the layout probe. Each byte depends on where it *means* to be (layer, plane, slot,
// byte of the row), not on its address: a wrong stride, dtype or transposition shows at once.
#ifndef KVASIR_PROTO_SHM_PROBE_PATTERN_H_
#define KVASIR_PROTO_SHM_PROBE_PATTERN_H_

#include <cstdint>

namespace kvasir::shm {

// SplitMix64 over the coordinates; plane 0 is K, 1 is V.
inline uint8_t ProbeByte(uint64_t seed, uint32_t layer, uint32_t plane, uint32_t slot,
                         uint32_t byte) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ULL * (1 + layer) + (uint64_t{plane} << 60) +
               (uint64_t{slot} << 40) + byte;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return static_cast<uint8_t>(z ^ (z >> 31));
}

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_PROBE_PATTERN_H_
