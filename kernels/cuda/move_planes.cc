#include "kernels/cuda/move_planes.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/move_planes-inl.h"

namespace kvasir::kernels::cuda {

absl::Status CheckPlaneMove(const PlaneMove& move) {
  if (move.direction > Direction::kToGroups) {
    return InvalidArgument("direction unknown: direction={} max=1",
                           static_cast<unsigned>(move.direction));
  }
  if (move.plane_bytes == 0 || move.plane_bytes > kRowBytesMax) {
    return InvalidArgument("plane bytes out of bounds: plane_bytes={} min=1 max={}",
                           move.plane_bytes, kRowBytesMax);
  }
  if (move.plane_count == 0) {
    return InvalidArgument("there is no plane: plane_count=0 min=1");
  }
  if (move.group_count == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("planes", move.planes != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("groups", move.groups != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("blocks", move.blocks != nullptr));
  const uint64_t pairs = uint64_t{move.group_count} * move.plane_count;
  KVASIR_RETURN_IF_ERROR(CheckGrid("groups times planes", pairs, 1));
  return CheckGrid("tiles", pairs * PlaneTiles(move), 1);
}

}  // namespace kvasir::kernels::cuda
