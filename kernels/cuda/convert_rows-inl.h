// What a thread of ConvertRows() does: eight elements.
#ifndef KVASIR_KERNELS_CUDA_CONVERT_ROWS_INL_H_
#define KVASIR_KERNELS_CUDA_CONVERT_ROWS_INL_H_

#include <cstdint>

#include "kernels/cuda/convert_rows.h"
#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"

namespace kvasir::kernels::cuda {

KVASIR_HOST_DEVICE inline uint64_t ConvertChunks(const RowConversion& conversion) {
  return conversion.rows * CeilDivide(conversion.elements, 8);
}

// The types are those of the conversion, where the compiler knows them.
KVASIR_HOST_DEVICE inline void ConvertThread(const RowConversion& conversion, RowType from_type,
                                             RowType to_type, uint64_t block, uint32_t thread) {
  const uint64_t chunks = CeilDivide(conversion.elements, 8);
  const uint64_t item = block * kThreads + thread;
  const uint64_t row = item / chunks;
  if (row >= conversion.rows) {
    return;
  }
  const uint64_t at = (item - row * chunks) * 8;
  const uint64_t left = conversion.elements - at;
  const uint32_t count = left < 8 ? static_cast<uint32_t>(left) : 8;
  const std::byte* from = conversion.from.At(row) + at * ElementBytes(from_type);
  std::byte* to = conversion.to.At(row) + at * ElementBytes(to_type);
  Eight eight = LoadEight(from_type, from, count);
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < 8; ++i) {
    eight.x[i] *= conversion.scale;
  }
  StoreEight(to_type, to, count, eight);
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_CONVERT_ROWS_INL_H_
