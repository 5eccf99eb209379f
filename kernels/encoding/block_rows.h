// Gathers the rows of a block into a tile of floats, turning keys on the way: what every encoder
// starts from.
//
// Thread-safe on different tiles; a thread keeps the angles of its last rope shape.
#ifndef KVASIR_KERNELS_ENCODING_BLOCK_ROWS_H_
#define KVASIR_KERNELS_ENCODING_BLOCK_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/encoding/record.h"

namespace kvasir::kernels {

// The largest finite value of f16. Tiles hold nothing beyond.
inline constexpr float kTileMax = 65504.0F;

// tile[i][dims] = the row at sources[i], any address, of elements of `type`, turned by
// turn.deltas[i] positions; of turn.rope pairing, rotated_dims and theta are looked at.
// Not-a-number counts as 0, what is beyond kTileMax as that, before a row is turned and after. A
// delta of 0, or none, leaves the elements as they are. Every source byte is read once. Cost: that
// of a copy; a turned row costs a product of angles more where its delta is another than that of
// the row before. REQUIRES: dims a multiple of 8, at most kRecordDimsMax; rotated_dims even and <=
// dims; no deltas or as many as sources.
void LoadBlockRows(RowType type, uint32_t dims, std::span<const std::byte* const> sources,
                   const RecordTurn& turn, float* tile);

namespace scalar {
// The same bit for bit, in plain code.
void LoadBlockRows(RowType type, uint32_t dims, std::span<const std::byte* const> sources,
                   const RecordTurn& turn, float* tile);
}  // namespace scalar

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_BLOCK_ROWS_H_
