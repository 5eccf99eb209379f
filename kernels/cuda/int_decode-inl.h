// What a thread of DecodeRecords() does: eight elements of a row.
#ifndef KVASIR_KERNELS_CUDA_INT_DECODE_INL_H_
#define KVASIR_KERNELS_CUDA_INT_DECODE_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/int_records.h"
#include "kernels/encoding/int_layout.h"

namespace kvasir::kernels::cuda {

// Threads of a record follow each other: its codes lie in the first-level cache until all are used.
KVASIR_HOST_DEVICE inline uint64_t DecodeChunks(const RecordDecoding& decoding) {
  return decoding.blocks * decoding.kv_heads * decoding.shape.rows * (decoding.shape.dims / 8);
}

KVASIR_HOST_DEVICE inline void DecodeThread(const RecordDecoding& decoding, RowType type,
                                            uint64_t block, uint32_t thread) {
  const uint64_t item = block * kThreads + thread;
  if (item >= DecodeChunks(decoding)) {
    return;
  }
  const IntLayout layout(decoding.shape);
  const uint32_t chunks = decoding.shape.dims / 8;
  const uint32_t of_record = decoding.shape.rows * chunks;
  const uint64_t index = item / of_record;
  const auto in_record = static_cast<uint32_t>(item - index * of_record);
  const uint32_t row = in_record / chunks;
  const uint32_t dim = (in_record - row * chunks) * 8;
  const uint64_t group = index / decoding.kv_heads;
  const auto head = static_cast<uint32_t>(index - group * decoding.kv_heads);
  if (decoding.counts != nullptr && row >= decoding.counts[group]) {
    return;
  }
  const std::byte* record = decoding.from.At(group, head);
  const auto* scales = reinterpret_cast<const uint16_t*>(record);
  const auto* zeros = reinterpret_cast<const uint16_t*>(record + layout.ZerosAt());
  const auto* words = reinterpret_cast<const uint32_t*>(record + layout.CodesAt());
  Eight eight = {};
  for (uint32_t i = 0; i < 8; ++i) {
    const size_t at = layout.ScaleOf(row, dim + i);
    const auto code = static_cast<float>(
        words[layout.WordOf(row, dim + i)] >> layout.ShiftOf(row, dim + i) & layout.levels);
    eight.x[i] = HalfBits(RowType::kF16, zeros[at]) + HalfBits(RowType::kF16, scales[at]) * code;
  }
  std::byte* to = decoding.to.At(group * decoding.shape.rows + row);
  const uint64_t element = uint64_t{head} * decoding.shape.dims + dim;
  StoreEight(type, to + element * ElementBytes(type), 8, eight);
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_INT_DECODE_INL_H_
