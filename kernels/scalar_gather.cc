// The plain form of gather.h: angles anew for every row.
#include <cmath>
#include <cstring>

#include "kernels/gather.h"
#include "kernels/row_convert.h"

namespace kvasir::kernels::scalar {

void GatherRotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                      std::span<const int64_t> deltas, std::byte* destination) {
  const size_t head_bytes = shape.head_dim * ElementBytes(shape.type);
  const size_t pairs = shape.rotated_dims / 2;
  const bool interleaved = shape.pairing == RopePairing::kInterleaved;
  for (size_t head = 0; head < sources.size() * shape.kv_heads; ++head) {
    const size_t row = head / shape.kv_heads;
    const std::byte* from = sources[row] + head % shape.kv_heads * head_bytes;
    std::byte* to = destination + head * head_bytes;
    std::memcpy(to, from, head_bytes);
    for (size_t pair = 0; deltas[row] != 0 && pair < pairs; ++pair) {
      const double angle =
          static_cast<double>(deltas[row]) *
          std::pow(shape.theta, -2.0 * static_cast<double>(pair) / shape.rotated_dims);
      const auto cosine = static_cast<float>(std::cos(angle));
      const auto sine = static_cast<float>(std::sin(angle));
      const size_t a = interleaved ? pair * 2 : pair;
      const size_t b = interleaved ? pair * 2 + 1 : pair + pairs;
      const float x = LoadElement(shape.type, to, a);
      const float y = LoadElement(shape.type, to, b);
      StoreElement(shape.type, to, a, x * cosine - y * sine);
      StoreElement(shape.type, to, b, x * sine + y * cosine);
    }
  }
}

}  // namespace kvasir::kernels::scalar
