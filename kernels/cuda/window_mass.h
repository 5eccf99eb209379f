// Attention of the last queries over the keys of one kv head, on the device: WindowMass() of
// kernels/scores.h.
//
// Source: SnapKV (arXiv:2404.14469, section 4). Asynchronous, thread-safe, as copy_rows.h. Cost:
// heads * window * rows * dim fused products, keys read once for each 16 queries (after the first
// time from the second-level cache), and three passes over the scores in `scratch`. Scores,
// exponentials and their sums are in float; sums are in another order than the CPU's, and exp is
// the device's: off by rounding.
#ifndef KVASIR_KERNELS_CUDA_WINDOW_MASS_H_
#define KVASIR_KERNELS_CUDA_WINDOW_MASS_H_

#include <cstdint>

#include <absl/status/status.h>

#include "kernels/cuda/rows.h"
#include "kernels/scores.h"

namespace kvasir::kernels::cuda {

struct KeyMass {
  KeyShape shape = {};  // kv_heads is 1
  uint32_t heads = 1;   // query heads that share the kv head, heads * window at most 2^16
  uint32_t window = 1;  // the last rows, whose queries count
  float scale = 1.0F;
  const float* q = nullptr;  // [heads][window][dim], not scaled
  RowSource keys = {};       // addresses of elements: multiples of their size
  uint64_t rows = 0;         // 0: nothing happens
  float* out = nullptr;      // [heads][rows]
  float* scratch =
      nullptr;  // [MassScratch()]: of the device, this call's until the stream has passed it
};

// Floats: 4 MiB for 32 queries of 32,768 rows.
uint64_t MassScratch(const KeyMass& mass);

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckKeyMass(const KeyMass& mass);

// Errors: those of CheckKeyMass(); kUnavailable when the runtime refuses a launch.
absl::Status MassOfWindow(const KeyMass& mass, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_WINDOW_MASS_H_
