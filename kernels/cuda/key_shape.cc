#include "kernels/cuda/key_shape.h"

#include "base/error.h"

namespace kvasir::kernels::cuda {

absl::Status CheckKeyShape(const KeyShape& shape) {
  if (shape.type < RowType::kF16 || shape.type > RowType::kF32) {
    return InvalidArgument("row type unknown: type={} max=2", static_cast<int>(shape.type));
  }
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
