#include "kernels/cuda/grid.h"

#include "base/error.h"

namespace kvasir::kernels::cuda {

absl::Status CheckGrid(std::string_view field, uint64_t of, uint64_t each) {
  if (CeilDivide(of, each) > kBlocksMax) {
    return InvalidArgument("too much for one launch: {}={} max={}", field, of, kBlocksMax * each);
  }
  return absl::OkStatus();
}

absl::Status CheckSet(std::string_view field, bool is_set) {
  return is_set ? absl::OkStatus() : InvalidArgument("a pointer is null: {}", field);
}

absl::Status CheckRowType(RowType type) {
  if (type < RowType::kF16 || type > RowType::kE4M3) {
    return InvalidArgument("row type unknown: type={} max={}", static_cast<int>(type),
                           static_cast<int>(RowType::kE4M3));
  }
  return absl::OkStatus();
}

}  // namespace kvasir::kernels::cuda
