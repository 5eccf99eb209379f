// The plain form of block_rows.h.
#include <algorithm>

#include "kernels/encoding/block_rows.h"
#include "kernels/encoding/block_turn.h"
#include "kernels/row_convert.h"

namespace kvasir::kernels::scalar {
namespace {

float Clean(float value) {
  return value == value ? std::max(std::min(value, kTileMax), -kTileMax) : 0.0F;
}

void TurnRow(const RopeShape& rope, const BlockTurn& by, float* row) {
  const uint32_t pairs = rope.rotated_dims / 2;
  const bool interleaved = rope.pairing == RopePairing::kInterleaved;
  for (uint32_t pair = 0; pair < pairs; ++pair) {
    float& a = row[interleaved ? 2 * pair : pair];
    float& b = row[interleaved ? 2 * pair + 1 : pair + pairs];
    const uint32_t at = interleaved ? 2 * pair : pair;
    const float cosine = by.cosine()[at], sine = by.sine()[at];
    const float x = a, y = b;
    a = Clean(x * cosine - y * sine);
    b = Clean(y * cosine + x * sine);
  }
}

}  // namespace

void LoadBlockRows(RowType type, uint32_t dims, std::span<const std::byte* const> sources,
                   const RecordTurn& turn, float* tile) {
  BlockTurn& by = BlockTurn::Of(turn.rope);
  for (size_t row = 0; row < sources.size(); ++row) {
    float* to = tile + row * dims;
    for (uint32_t dim = 0; dim < dims; ++dim) {
      to[dim] = Clean(LoadElement(type, sources[row], dim));
    }
    if (!turn.deltas.empty() && turn.deltas[row] != 0) {
      by.Turn(turn.deltas[row]);
      TurnRow(turn.rope, by, to);
    }
  }
}

}  // namespace kvasir::kernels::scalar
