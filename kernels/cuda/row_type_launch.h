// One kernel for each row type: inside, the type is a constant and no branch. For .cu files.
#ifndef KVASIR_KERNELS_CUDA_ROW_TYPE_LAUNCH_H_
#define KVASIR_KERNELS_CUDA_ROW_TYPE_LAUNCH_H_

#include <type_traits>

#include "kernels/attention.h"

namespace kvasir::kernels::cuda {

// Calls launch(std::integral_constant<RowType, type>()).
template <class Launch>
void ForRowType(RowType type, const Launch& launch) {
  switch (type) {
    case RowType::kF16:
      return launch(std::integral_constant<RowType, RowType::kF16>());
    case RowType::kBF16:
      return launch(std::integral_constant<RowType, RowType::kBF16>());
    case RowType::kF32:
      return launch(std::integral_constant<RowType, RowType::kF32>());
    case RowType::kE4M3:
      return launch(std::integral_constant<RowType, RowType::kE4M3>());
  }
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ROW_TYPE_LAUNCH_H_
