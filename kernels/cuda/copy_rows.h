// Copies rows: gather, compaction, scatter, and pieces of rows. GatherRows() and GatherPieces() of
// kernels/gather.h on the device.
//
// Asynchronous on the stream: lists, rows and indices stay as they are until it has passed the
// launch. Thread-safe. Cost: one pass; 16 bytes an access where rows are aligned to that, as all
// rows of blocks are (2,048 bytes of Llama-3-8B, 384 of SmolLM2-135M, in f16); else byte by byte.
// Compaction of attention caches: StreamingLLM (arXiv:2309.17453, section 3.2), SepLLM
// (arXiv:2412.12094, section 3).
#ifndef KVASIR_KERNELS_CUDA_COPY_ROWS_H_
#define KVASIR_KERNELS_CUDA_COPY_ROWS_H_

#include <cstdint>

#include <absl/status/status.h>

#include "kernels/cuda/rows.h"

namespace kvasir::kernels::cuda {

// from.At(i) to to.At(i). Gather: `from` has indices or addresses; scatter: `to` has. Rows of `to`
// overlap neither each other nor those of `from`.
struct RowCopy {
  RowSource from = {};
  RowTarget to = {};
  uint64_t rows = 0;       // 0: nothing happens
  uint64_t row_bytes = 0;  // 1 to 2^30; of a piece, where pieces are copied
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckRowCopy(const RowCopy& copy);

// Errors: those of CheckRowCopy(); kUnavailable when the runtime refuses the launch.
absl::Status CopyRows(const RowCopy& copy, CUstream_st* stream);

// Whether this build has code for the current device. Errors: kUnavailable with the runtime's word.
absl::Status CheckCopyRowsCode();

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_COPY_ROWS_H_
