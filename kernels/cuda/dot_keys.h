// Scores of keys by one query, on the device: DotRows() of kernels/scores.h.
//
// Source: GemFilter (arXiv:2409.17422, algorithm 1): the last query of a prompt, summed over the
// query heads of each group, against every key of one layer. Asynchronous, thread-safe, as
// copy_rows.h. Cost: one pass over the keys, 32 threads a key. A thread's products are fused with
// its sum, and the sums of 32 threads are added pairwise: the same on every GPU, off by rounding
// against the CPU.
#ifndef KVASIR_KERNELS_CUDA_DOT_KEYS_H_
#define KVASIR_KERNELS_CUDA_DOT_KEYS_H_

#include <cstdint>

#include <absl/status/status.h>

#include "kernels/cuda/rows.h"
#include "kernels/scores.h"

namespace kvasir::kernels::cuda {

struct KeyDots {
  KeyShape shape = {};
  const float* q = nullptr;  // [kv_heads][dim], of the device
  RowSource keys = {};       // addresses of elements: multiples of their size
  uint64_t rows = 0;         // 0: nothing happens
  float* out = nullptr;      // [rows]
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckKeyDots(const KeyDots& dots);

// Errors: those of CheckKeyDots(); kUnavailable when the runtime refuses the launch.
absl::Status DotKeys(const KeyDots& dots, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_DOT_KEYS_H_
