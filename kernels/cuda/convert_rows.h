// Copies rows from one element type to another, fp8 among them.
//
// What CopyRows() does with the same bytes this does with the same numbers: gather, conversion and
// scatter in one pass, e.g. for engines whose cache is fp8. Numbers go through float and are
// multiplied there: out = in * scale, rounded as the type's conversion rounds. Asynchronous,
// thread-safe, as copy_rows.h. Cost: one pass, eight elements an access.
#ifndef KVASIR_KERNELS_CUDA_CONVERT_ROWS_H_
#define KVASIR_KERNELS_CUDA_CONVERT_ROWS_H_

#include <cstdint>

#include <absl/status/status.h>

#include "kernels/attention.h"
#include "kernels/cuda/rows.h"

namespace kvasir::kernels::cuda {

struct RowConversion {
  RowType from_type = RowType::kF16;
  RowType to_type = RowType::kF16;
  RowSource from = {};    // addresses of elements: multiples of their size
  RowTarget to = {};      // likewise; overlaps as for RowCopy
  uint64_t rows = 0;      // 0: nothing happens
  uint64_t elements = 0;  // of a row, 1 to 2^28
  float scale = 1.0F;     // finite
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckRowConversion(const RowConversion& conversion);

// Errors: those of CheckRowConversion(); kUnavailable when the runtime refuses the launch.
absl::Status ConvertRows(const RowConversion& conversion, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_CONVERT_ROWS_H_
