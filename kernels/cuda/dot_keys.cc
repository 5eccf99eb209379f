#include "kernels/cuda/dot_keys.h"

#include "base/status_macros.h"
#include "kernels/cuda/dot_keys-inl.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/key_shape.h"

namespace kvasir::kernels::cuda {

absl::Status CheckKeyDots(const KeyDots& dots) {
  KVASIR_RETURN_IF_ERROR(CheckKeyShape(dots.shape));
  if (dots.rows == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("q", dots.q != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("keys", dots.keys.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckSet("out", dots.out != nullptr));
  return CheckGrid("rows", dots.rows, kDotRows);
}

}  // namespace kvasir::kernels::cuda
