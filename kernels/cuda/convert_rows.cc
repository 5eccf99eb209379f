#include "kernels/cuda/convert_rows.h"

#include <cmath>

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/convert_rows-inl.h"
#include "kernels/cuda/grid.h"

namespace kvasir::kernels::cuda {
namespace {

constexpr uint64_t kElementsMax = uint64_t{1} << 28U;

}  // namespace

absl::Status CheckRowConversion(const RowConversion& conversion) {
  KVASIR_RETURN_IF_ERROR(CheckRowType(conversion.from_type));
  KVASIR_RETURN_IF_ERROR(CheckRowType(conversion.to_type));
  if (conversion.elements == 0 || conversion.elements > kElementsMax) {
    return InvalidArgument("elements out of bounds: elements={} min=1 max={}", conversion.elements,
                           kElementsMax);
  }
  if (!std::isfinite(conversion.scale)) {
    return InvalidArgument("scale is no finite number: scale={}", conversion.scale);
  }
  if (conversion.rows == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("from", conversion.from.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckSet("to", conversion.to.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckGrid("rows", conversion.rows, kThreads));
  return CheckGrid("chunks of eight elements", ConvertChunks(conversion), kThreads);
}

}  // namespace kvasir::kernels::cuda
