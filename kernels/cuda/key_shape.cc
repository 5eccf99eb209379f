#include "kernels/cuda/key_shape.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/grid.h"

namespace kvasir::kernels::cuda {

absl::Status CheckKeyShape(const KeyShape& shape) {
  KVASIR_RETURN_IF_ERROR(CheckRowType(shape.type));
  if (shape.kv_heads == 0 || shape.kv_heads > kKeyHeadsMax) {
    return InvalidArgument("kv heads out of bounds: kv_heads={} min=1 max={}", shape.kv_heads,
                           kKeyHeadsMax);
  }
  if (shape.dim == 0 || shape.dim > kKeyDimMax) {
    return InvalidArgument("dim out of bounds: dim={} min=1 max={}", shape.dim, kKeyDimMax);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::kernels::cuda
