#include "kernels/cuda/top_k.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/top_k-inl.h"

namespace kvasir::kernels::cuda {

absl::Status CheckSelectionSize(const ScoreSelection& selection) {
  constexpr uint64_t kSizeMax = 0x7FFFFFFF;
  if (selection.size > kSizeMax) {
    return InvalidArgument("size out of bounds: size={} max={}", selection.size, kSizeMax);
  }
  if (selection.k > selection.size) {
    return InvalidArgument("k out of bounds: k={} max={}", selection.k, selection.size);
  }
  return absl::OkStatus();
}

absl::Status CheckScoreSelection(const ScoreSelection& selection) {
  KVASIR_RETURN_IF_ERROR(CheckSelectionSize(selection));
  if (selection.k == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("scores", selection.scores != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("out", selection.out != nullptr));
  KVASIR_RETURN_IF_ERROR(CheckSet("scratch", selection.scratch != nullptr));
  if (reinterpret_cast<uintptr_t>(selection.scratch) % kScratchAlignment != 0) {
    return InvalidArgument("scratch is not aligned: multiple_of={}", kScratchAlignment);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::kernels::cuda
