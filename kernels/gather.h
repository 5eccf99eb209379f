// Copies scattered rows into a dense block, re-rotating keys on the way: inner loop of compaction.
//
// Thread-safe on different destinations. A broken contract on sizes ends the process.
#ifndef KVASIR_KERNELS_GATHER_H_
#define KVASIR_KERNELS_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/attention.h"

namespace kvasir::kernels {

// Copies sources[i] to destination + i * row_bytes. The destination is written once, front to back.
// row_bytes > 0, any alignment; a destination of 1 MiB and more is written past the caches if it
// and the rows are multiples of 64 bytes, and so is one that is part of a larger copy: `all_bytes`
// are those of all parts. Sources may be written by others meanwhile: every source
// byte is read once.
void GatherRows(std::span<const std::byte* const> sources, uint64_t row_bytes,
                std::byte* destination, uint64_t all_bytes = 0);

// Copies pieces of rows: sources[i] (piece_bytes > 0, any alignment) to destination + i * stride,
// stride >= piece_bytes. For rows whose heads come from different places. Every source byte is read
// once.
void GatherPieces(std::span<const std::byte* const> sources, uint64_t piece_bytes,
                  std::byte* destination, uint64_t stride);

enum class RopePairing { kInterleaved, kHalfSplit };

struct RopeShape {
  RowType type = RowType::kF16;
  RopePairing pairing = RopePairing::kInterleaved;
  uint32_t kv_heads = 1;
  uint32_t head_dim = 64;
  uint32_t rotated_dims = 64;  // even, <= head_dim; the dims behind are copied
  double theta = 10000.0;
  bool operator==(const RopeShape&) const = default;
};

// Like GatherRows for key rows [kv_head][head_dim], turned by deltas[i] positions (may be
// negative). Angles are computed in double: in float they are wrong by 0.2 rad at 4 million
// positions. Results are rounded to the nearest even. A delta of 0 copies the row bit for bit.
// Cost: out of cache up to 1.6 times that of the copy while deltas repeat or were seen before
// (kernels/README.md); a thread keeps 2 KiB of angles a rotated dimension for each pairing.
void GatherRotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                      std::span<const int64_t> deltas, std::byte* destination);

// The factors of those turns, for who turns rows elsewhere (turn_row.h): of deltas[i] at
// to + i * rotated_dims, first the cosines of all pairs, then their sines. A row that is turned by
// them has the bits that GatherRotateRows() gives it on this machine, but for what a NaN carries.
// Cost: two products a pair while deltas were seen before.
void MakeTurns(const RopeShape& shape, std::span<const int64_t> deltas, float* to);

namespace scalar {
void GatherRotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                      std::span<const int64_t> deltas, std::byte* destination);
void MakeTurns(const RopeShape& shape, std::span<const int64_t> deltas, float* to);
}  // namespace scalar

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_GATHER_H_
