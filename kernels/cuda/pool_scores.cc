#include "kernels/cuda/pool_scores.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/grid.h"

namespace kvasir::kernels::cuda {
namespace {

constexpr uint32_t kKernelMax = 1U << 16U;

}  // namespace

absl::Status CheckScorePooling(const ScorePooling& pooling) {
  if (pooling.kernel % 2 == 0 || pooling.kernel > kKernelMax) {
    return InvalidArgument("pooling kernel out of bounds: kernel={} min=1 max={} odd",
                           pooling.kernel, kKernelMax);
  }
  if (pooling.pooling < Pooling::kAverage || pooling.pooling > Pooling::kMaximum) {
    return InvalidArgument("pooling unknown: pooling={} max=1", static_cast<int>(pooling.pooling));
  }
  if (pooling.size == 0 || pooling.lists == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("in", pooling.in != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("out", pooling.out != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckGrid("size", pooling.size, kThreads));
  KVASIR_RETURN_IF_ERROR(CheckGrid("lists", pooling.lists, 1));
  return CheckGrid("scores", pooling.lists * pooling.size, kThreads);
}

}  // namespace kvasir::kernels::cuda
