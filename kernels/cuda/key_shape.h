// Bounds of keys that are scored. Pure.
#ifndef KVASIR_KERNELS_CUDA_KEY_SHAPE_H_
#define KVASIR_KERNELS_CUDA_KEY_SHAPE_H_

#include <cstdint>

#include <absl/status/status.h>

#include "kernels/scores.h"

namespace kvasir::kernels::cuda {

inline constexpr uint32_t kKeyDimMax = 256;
inline constexpr uint32_t kKeyHeadsMax = 1U << 12U;

// Errors: kInvalidArgument naming type, kv_heads or dim, and the bound.
absl::Status CheckKeyShape(const KeyShape& shape);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_KEY_SHAPE_H_
