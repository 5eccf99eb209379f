// What a thread of CopyRows() does.
#ifndef KVASIR_KERNELS_CUDA_COPY_ROWS_INL_H_
#define KVASIR_KERNELS_CUDA_COPY_ROWS_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/copy_rows.h"
#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"

namespace kvasir::kernels::cuda {

// A thread has four loads under way before its first store: that is what hides the way to memory.
inline constexpr uint32_t kCopyDepth = 4;
inline constexpr uint32_t kCopyUnits = kThreads * kCopyDepth;  // of a block: 16 KiB

KVASIR_HOST_DEVICE constexpr uint32_t UnitsOf(uint64_t bytes) {
  return static_cast<uint32_t>(CeilDivide(bytes, kUnit));
}

KVASIR_HOST_DEVICE inline uint64_t CopyBlocks(const RowCopy& copy) {
  return CeilDivide(copy.rows * UnitsOf(copy.row_bytes), kCopyUnits);
}

// Up to 16 bytes on their way.
struct Piece {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  uint32_t bytes = 0;  // 0: none
  Unit unit = {};      // where it is whole

  KVASIR_HOST_DEVICE bool IsWhole() const {
    return bytes == kUnit && IsAligned(from) && IsAligned(to);
  }
};

KVASIR_HOST_DEVICE inline void MovePieces(Piece (&pieces)[kCopyDepth]) {
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < kCopyDepth; ++i) {
    if (pieces[i].IsWhole()) {
      pieces[i].unit = LoadUnit(pieces[i].from);
    }
  }
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < kCopyDepth; ++i) {
    if (pieces[i].IsWhole()) {
      StoreUnit(pieces[i].to, pieces[i].unit);
    } else if (pieces[i].bytes > 0) {
      CopyBytes(pieces[i].from, pieces[i].to, pieces[i].bytes);
    }
  }
}

KVASIR_HOST_DEVICE inline void CopyRowsThread(const RowCopy& copy, uint64_t block,
                                              uint32_t thread) {
  const uint32_t units = UnitsOf(copy.row_bytes);
  const uint64_t total = copy.rows * units;
  // One division of 64 bits a thread; those of its pieces are of 32 bits.
  const uint64_t first = block * kCopyUnits;
  const uint64_t first_row = first / units;
  const auto first_unit = static_cast<uint32_t>(first - first_row * units);
  Piece pieces[kCopyDepth];
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < kCopyDepth; ++i) {
    const uint32_t at = i * kThreads + thread;
    if (first + at >= total) {
      continue;
    }
    const uint32_t row = (first_unit + at) / units;
    const uint64_t byte = uint64_t{first_unit + at - row * units} * kUnit;
    pieces[i].from = copy.from.At(first_row + row) + byte;
    pieces[i].to = copy.to.At(first_row + row) + byte;
    const uint64_t left = copy.row_bytes - byte;
    pieces[i].bytes = left < kUnit ? static_cast<uint32_t>(left) : kUnit;
  }
  MovePieces(pieces);
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_COPY_ROWS_INL_H_
