// What a thread of TopK() does before the sort: a stable sort by descending order of the scores
// keeps equal ones in the order of their indices, so that ties go to the lower.
#ifndef KVASIR_KERNELS_CUDA_TOP_K_INL_H_
#define KVASIR_KERNELS_CUDA_TOP_K_INL_H_

#include <cstdint>

#include "kernels/cuda/grid.h"
#include "kernels/cuda/top_k.h"
#include "kernels/score_order.h"

namespace kvasir::kernels::cuda {

inline constexpr uint64_t kScratchAlignment = 256;

// Size and k alone.
absl::Status CheckSelectionSize(const ScoreSelection& selection);

KVASIR_HOST_DEVICE inline void OrderThread(const ScoreSelection& selection, uint64_t block,
                                           uint32_t thread, uint32_t* orders, uint32_t* indices) {
  const uint64_t at = block * kThreads + thread;
  if (at < selection.size) {
    orders[at] = OrderOf(selection.scores[at]);
    indices[at] = static_cast<uint32_t>(at);
  }
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_TOP_K_INL_H_
