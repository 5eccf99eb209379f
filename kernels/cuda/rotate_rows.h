// Copies key rows and turns them to new positions on the way (RoPE): GatherRotateRows() of
// kernels/gather.h on the device.
//
// Source: RoFormer (arXiv:2104.09864, section 3.2); re-rotation at compaction: StreamingLLM
// (arXiv:2309.17453, section 3.2). Asynchronous, thread-safe, as copy_rows.h. Cost: that of the
// copy and, for each row, six loads from the table a pair, which serve all kv heads of the row.
// Results are those of the CPU up to a last bit of the elements: turns are two products of entries,
// off by at most 3e-7.
#ifndef KVASIR_KERNELS_CUDA_ROTATE_ROWS_H_
#define KVASIR_KERNELS_CUDA_ROTATE_ROWS_H_

#include <cstdint>

#include <absl/status/status.h>

#include "kernels/cuda/rope_table.h"
#include "kernels/cuda/rows.h"
#include "kernels/gather.h"

namespace kvasir::kernels::cuda {

struct RowRotation {
  RopeShape shape = {};             // theta is that of the table
  RopeTable table = {};             // of shape.rotated_dims
  RowSource from = {};              // addresses of elements: multiples of their size
  RowTarget to = {};                // likewise; overlaps as for RowCopy
  const int64_t* deltas = nullptr;  // [rows], positions; 0 copies bit for bit
  uint64_t rows = 0;                // 0: nothing happens
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckRowRotation(const RowRotation& rotation);

// Errors: those of CheckRowRotation(); kUnavailable when the runtime refuses the launch.
absl::Status RotateRows(const RowRotation& rotation, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ROTATE_ROWS_H_
