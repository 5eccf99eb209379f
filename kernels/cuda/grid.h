// Bounds that launches share. Pure.
#ifndef KVASIR_KERNELS_CUDA_GRID_H_
#define KVASIR_KERNELS_CUDA_GRID_H_

#include <cstdint>
#include <string_view>

#include <absl/status/status.h>

#include "kernels/attention.h"
#include "kernels/host_device.h"

namespace kvasir::kernels::cuda {

inline constexpr uint32_t kThreads = 256;  // of a block
inline constexpr uint64_t kBlocksMax = 0x7FFFFFFF;
inline constexpr uint64_t kRowBytesMax = uint64_t{1} << 30;

KVASIR_HOST_DEVICE constexpr uint64_t CeilDivide(uint64_t of, uint64_t by) {
  return (of + by - 1) / by;
}

// Errors: kInvalidArgument where `of` things, `each` in a block, are more than a grid has blocks.
absl::Status CheckGrid(std::string_view field, uint64_t of, uint64_t each);

// Errors: kInvalidArgument naming the field that is null though it is needed.
absl::Status CheckSet(std::string_view field, bool is_set);

// Errors: kInvalidArgument where it is none of RowType.
absl::Status CheckRowType(RowType type);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_GRID_H_
