// Copies key rows and turns them to new positions on the way (RoPE): GatherRotateRows() of
// kernels/gather.h on the device.
//
// Source: RoFormer (arXiv:2104.09864, section 3.2); re-rotation at compaction: StreamingLLM
// (arXiv:2309.17453, section 3.2). Asynchronous, thread-safe, as copy_rows.h. The factors of turns
// are made by the host, once for all rows and layers that are turned alike: the results are those
// of the CPU, every bit, but for what a NaN carries. A turn makes numbers up to sqrt(2) times as
// large: in fp8 what would be beyond 448 becomes that. Cost: that of the copy and, for each row,
// two loads of factors a pair, which serve all kv heads of the row.
#ifndef KVASIR_KERNELS_CUDA_ROTATE_ROWS_H_
#define KVASIR_KERNELS_CUDA_ROTATE_ROWS_H_

#include <cstdint>
#include <limits>

#include <absl/status/status.h>

#include "kernels/cuda/rows.h"
#include "kernels/gather.h"

namespace kvasir::kernels::cuda {

// In place of the number of a turn: the row is copied bit for bit.
inline constexpr uint32_t kNoTurn = std::numeric_limits<uint32_t>::max();

struct RowRotation {
  RopeShape shape = {};               // theta is not used
  RowSource from = {};                // addresses of elements: multiples of their size
  RowTarget to = {};                  // likewise; overlaps as for RowCopy
  const float* turns = nullptr;       // of MakeTurns(), copied to the device
  const uint32_t* turn_of = nullptr;  // [rows]: a turn's number, or kNoTurn; not checked
  uint64_t rows = 0;                  // 0: nothing happens
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckRowRotation(const RowRotation& rotation);

// Errors: those of CheckRowRotation(); kUnavailable when the runtime refuses the launch.
absl::Status RotateRows(const RowRotation& rotation, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ROTATE_ROWS_H_
