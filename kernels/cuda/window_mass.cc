#include "kernels/cuda/window_mass.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/key_shape.h"
#include "kernels/cuda/window_mass-inl.h"

namespace kvasir::kernels::cuda {
namespace {

constexpr uint64_t kQueriesMax = 1U << 16U;

}  // namespace

uint64_t MassScratch(const KeyMass& mass) { return MassQueries(mass) * (mass.rows + 2); }

absl::Status CheckKeyMass(const KeyMass& mass) {
  KVASIR_RETURN_IF_ERROR(CheckKeyShape(mass.shape));
  if (mass.shape.kv_heads != 1) {
    return InvalidArgument("mass is of one kv head: kv_heads={}", mass.shape.kv_heads);
  }
  const uint64_t queries = uint64_t{mass.heads} * mass.window;
  if (queries == 0 || queries > kQueriesMax) {
    return InvalidArgument("queries out of bounds: heads={} window={} min=1 product_max={}",
                           mass.heads, mass.window, kQueriesMax);
  }
  if (mass.rows == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("q", mass.q != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("keys", mass.keys.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckSet("out", mass.out != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("scratch", mass.scratch != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckGrid("rows", mass.rows, kThreads));
  KVASIR_RETURN_IF_ERROR(CheckGrid("scores", ScoreBlocks(mass), 1));
  return CheckGrid("heads times rows", mass.heads * mass.rows, kThreads);
}

}  // namespace kvasir::kernels::cuda
