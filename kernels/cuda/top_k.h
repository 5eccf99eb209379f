// The largest scores on the device: TopK() of kernels/scores.h, the same indices.
//
// Asynchronous, thread-safe on different scratch memory, as copy_rows.h. Cost: a stable radix sort
// of all scores with their indices (CUB), then one of the k indices: some 30 bytes of traffic a
// score and digit.
#ifndef KVASIR_KERNELS_CUDA_TOP_K_H_
#define KVASIR_KERNELS_CUDA_TOP_K_H_

#include <cstddef>
#include <cstdint>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "kernels/cuda/rows.h"

namespace kvasir::kernels::cuda {

struct ScoreSelection {
  const float* scores = nullptr;  // [size], no NaN
  uint64_t size = 0;              // at most 2^31 - 1
  uint64_t k = 0;                 // at most size; 0: nothing happens
  uint32_t* out = nullptr;        // [k]: indices, ascending; ties go to the lower index
  std::byte* scratch = nullptr;   // [TopKScratch()], aligned to 256 bytes
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckScoreSelection(const ScoreSelection& selection);

// Bytes of scratch for such a selection; pointers are not looked at. Errors: kInvalidArgument for
// size and k; kUnavailable where there is no GPU.
absl::StatusOr<uint64_t> TopKScratch(const ScoreSelection& selection);

// Errors: those of both above; kUnavailable when the runtime refuses a launch.
absl::Status TopK(const ScoreSelection& selection, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_TOP_K_H_
