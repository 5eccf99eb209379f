#include "kernels/cuda/rotate_rows.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/rotate_rows-inl.h"

namespace kvasir::kernels::cuda {
namespace {

constexpr uint32_t kHeadsMax = 1U << 12U;
constexpr uint32_t kHeadDimMax = 1U << 16U;

}  // namespace

absl::Status CheckRowRotation(const RowRotation& rotation) {
  const RopeShape& shape = rotation.shape;
  KVASIR_RETURN_IF_ERROR(CheckRowType(shape.type));
  if (shape.pairing < RopePairing::kInterleaved || shape.pairing > RopePairing::kHalfSplit) {
    return InvalidArgument("pairing unknown: pairing={} max=1", static_cast<int>(shape.pairing));
  }
  if (shape.kv_heads == 0 || shape.kv_heads > kHeadsMax) {
    return InvalidArgument("kv heads out of bounds: kv_heads={} min=1 max={}", shape.kv_heads,
                           kHeadsMax);
  }
  if (shape.head_dim == 0 || shape.head_dim > kHeadDimMax) {
    return InvalidArgument("head dim out of bounds: head_dim={} min=1 max={}", shape.head_dim,
                           kHeadDimMax);
  }
  if (shape.rotated_dims % 2 != 0 || shape.rotated_dims > shape.head_dim) {
    return InvalidArgument("rotated dims out of bounds: rotated_dims={} max={} multiple_of=2",
                           shape.rotated_dims, shape.head_dim);
  }
  if (rotation.rows == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("from", rotation.from.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckSet("to", rotation.to.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckSet("turn_of", rotation.turn_of != nullptr));
  if (shape.rotated_dims > 0) {
    KVASIR_RETURN_IF_ERROR(CheckSet("turns", rotation.turns != nullptr));
  }
  KVASIR_RETURN_IF_ERROR(CheckGrid("rows", rotation.rows, kThreads));
  return CheckGrid("chunks", rotation.rows * RotateChunks(shape), kThreads);
}

}  // namespace kvasir::kernels::cuda
