#include "kernels/cuda/copy_rows.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/copy_rows-inl.h"
#include "kernels/cuda/grid.h"

namespace kvasir::kernels::cuda {

absl::Status CheckRowCopy(const RowCopy& copy) {
  if (copy.row_bytes == 0 || copy.row_bytes > kRowBytesMax) {
    return InvalidArgument("row bytes out of bounds: row_bytes={} min=1 max={}", copy.row_bytes,
                           kRowBytesMax);
  }
  if (copy.rows == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("from", copy.from.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckSet("to", copy.to.IsSet()));
  // Rows alone are bounded first, so that the product below does not wrap.
  KVASIR_RETURN_IF_ERROR(CheckGrid("rows", copy.rows, 1));
  return CheckGrid("units", copy.rows * UnitsOf(copy.row_bytes), kCopyUnits);
}

}  // namespace kvasir::kernels::cuda
