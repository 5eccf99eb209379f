// What a simulated engine writes: K and V of a row are a function of the tenant, the model, all
// tokens up to the row, and the place. So a row of another tenant, of another text, of another row,
// layer or plane is told from the right one by its bytes.
#ifndef KVASIR_TESTS_SIM_ROW_BYTES_H_
#define KVASIR_TESTS_SIM_ROW_BYTES_H_

#include <array>
#include <cstdint>
#include <cstring>

#include "kernels/row_convert.h"
#include "tests/sim/random.h"

namespace kvasir::sim {

inline constexpr uint32_t kDims = 16;  // of a head, K and V
inline constexpr uint64_t kRowBytes = 2 * kDims;
using Row = std::array<uint16_t, kDims>;  // f16 between 1/16 and 1

// Of all tokens so far, one after the other.
constexpr uint64_t NextChain(uint64_t chain, uint32_t token) { return Mixed(chain ^ (token + 1)); }

// `writer`: of tenant and model.
constexpr uint64_t RowKey(uint64_t writer, uint64_t chain, uint64_t row) {
  return Mixed(writer * 0xD6E8FEB86659FD93U ^ chain) + row;
}

inline Row RowOf(uint64_t row_key, uint32_t layer, uint32_t plane) {
  Row row;
  for (uint32_t i = 0; i < kDims; i += 4) {
    const uint64_t bits = Mixed(row_key ^ (uint64_t{layer * 2 + plane} * kDims + i) << 48);
    for (uint32_t e = 0; e < 4; ++e) {
      row[i + e] = static_cast<uint16_t>(0x2C00 + (bits >> (16 * e) & 0x0FFF));
    }
  }
  return row;
}

inline bool IsRow(const Row& row, const std::byte* data) {
  return std::memcmp(row.data(), data, kRowBytes) == 0;
}

// `data`: decoded from 8 bits.
inline bool IsNearRow(const Row& row, const float* data) {
  constexpr float kTolerance = 0.004F;
  for (uint32_t e = 0; e < kDims; ++e) {
    const float difference = data[e] - kernels::F16ToFloat(row[e]);
    if (!(difference < kTolerance && difference > -kTolerance)) return false;
  }
  return true;
}

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_ROW_BYTES_H_
