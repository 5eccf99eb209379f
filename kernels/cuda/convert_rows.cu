#include <type_traits>

#include "kernels/cuda/convert_rows-inl.h"
#include "kernels/cuda/convert_rows.h"
#include "kernels/cuda/cuda_status.h"

namespace kvasir::kernels::cuda {
namespace {

template <ElementType kFrom, ElementType kTo>
__global__ void __launch_bounds__(kThreads) ConvertKernel(RowConversion conversion) {
  ConvertThread(conversion, kFrom, kTo, blockIdx.x, threadIdx.x);
}

// Calls launch(std::integral_constant<ElementType, type>()).
template <class Launch>
void ForElementType(ElementType type, const Launch& launch) {
  switch (type) {
    case ElementType::kF16:
      return launch(std::integral_constant<ElementType, ElementType::kF16>());
    case ElementType::kBF16:
      return launch(std::integral_constant<ElementType, ElementType::kBF16>());
    case ElementType::kF32:
      return launch(std::integral_constant<ElementType, ElementType::kF32>());
    case ElementType::kE4M3:
      return launch(std::integral_constant<ElementType, ElementType::kE4M3>());
  }
}

}  // namespace

absl::Status ConvertRows(const RowConversion& conversion, CUstream_st* stream) {
  if (absl::Status checked = CheckRowConversion(conversion);
      !checked.ok() || conversion.rows == 0) {
    return checked;
  }
  const auto blocks = static_cast<unsigned>(CeilDivide(ConvertChunks(conversion), kThreads));
  ForElementType(conversion.from_type, [&](auto from) {
    ForElementType(conversion.to_type, [&](auto to) {
      ConvertKernel<decltype(from)::value, decltype(to)::value>
          <<<blocks, kThreads, 0, stream>>>(conversion);
    });
  });
  return LaunchStatus("convert_rows");
}

}  // namespace kvasir::kernels::cuda
