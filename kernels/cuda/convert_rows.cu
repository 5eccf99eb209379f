#include "kernels/cuda/convert_rows-inl.h"
#include "kernels/cuda/convert_rows.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/row_type_launch.h"

namespace kvasir::kernels::cuda {
namespace {

template <RowType kFrom, RowType kTo>
__global__ void __launch_bounds__(kThreads) ConvertKernel(RowConversion conversion) {
  ConvertThread(conversion, kFrom, kTo, blockIdx.x, threadIdx.x);
}

}  // namespace

absl::Status ConvertRows(const RowConversion& conversion, CUstream_st* stream) {
  if (absl::Status checked = CheckRowConversion(conversion);
      !checked.ok() || conversion.rows == 0) {
    return checked;
  }
  const auto blocks = static_cast<unsigned>(CeilDivide(ConvertChunks(conversion), kThreads));
  ForRowType(conversion.from_type, [&](auto from) {
    ForRowType(conversion.to_type, [&](auto to) {
      ConvertKernel<decltype(from)::value, decltype(to)::value>
          <<<blocks, kThreads, 0, stream>>>(conversion);
    });
  });
  return LaunchStatus("convert_rows");
}

}  // namespace kvasir::kernels::cuda
