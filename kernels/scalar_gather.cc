// The plain form of gather.h: angles anew for every row.
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/gather.h"
#include "kernels/turn_row.h"

namespace kvasir::kernels::scalar {

void MakeTurns(const RopeShape& shape, std::span<const int64_t> deltas, float* to) {
  const size_t pairs = shape.rotated_dims / 2;
  for (const int64_t delta : deltas) {
    for (size_t pair = 0; pair < pairs; ++pair) {
      const double angle =
          static_cast<double>(delta) *
          std::pow(shape.theta, -2.0 * static_cast<double>(pair) / shape.rotated_dims);
      to[pair] = static_cast<float>(std::cos(angle));
      to[pairs + pair] = static_cast<float>(std::sin(angle));
    }
    to += shape.rotated_dims;
  }
}

void GatherRotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                      std::span<const int64_t> deltas, std::byte* destination) {
  const size_t row_bytes = shape.kv_heads * shape.head_dim * ElementBytes(shape.type);
  std::vector<float> factors(shape.rotated_dims);
  for (size_t row = 0; row < sources.size(); ++row) {
    std::byte* to = destination + row * row_bytes;
    if (deltas[row] == 0) {
      std::memcpy(to, sources[row], row_bytes);
      continue;
    }
    scalar::MakeTurns(shape, deltas.subspan(row, 1), factors.data());
    TurnRow(shape, factors.data(), sources[row], to);
  }
}

}  // namespace kvasir::kernels::scalar
