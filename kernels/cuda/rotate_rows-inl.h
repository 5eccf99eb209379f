// What a thread of RotateRows() does: eight pairs, or sixteen elements behind the last pair, in
// every kv head of a row, so that a turn is made once for all heads.
#ifndef KVASIR_KERNELS_CUDA_ROTATE_ROWS_INL_H_
#define KVASIR_KERNELS_CUDA_ROTATE_ROWS_INL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/rotate_rows.h"
#include "kernels/turn_row.h"

namespace kvasir::kernels::cuda {

inline constexpr uint32_t kChunkPairs = 8;

// Threads of a row.
KVASIR_HOST_DEVICE inline uint32_t PairChunks(const RopeShape& shape) {
  return static_cast<uint32_t>(CeilDivide(shape.rotated_dims / 2, kChunkPairs));
}
KVASIR_HOST_DEVICE inline uint32_t RotateChunks(const RopeShape& shape) {
  return PairChunks(shape) +
         static_cast<uint32_t>(CeilDivide(shape.head_dim - shape.rotated_dims, 2 * kChunkPairs));
}

KVASIR_HOST_DEVICE inline uint64_t RotateBlocks(const RowRotation& rotation) {
  return CeilDivide(rotation.rows * RotateChunks(rotation.shape), kThreads);
}

// Two runs of elements of a head: the first and second halves of pairs, or what lies side by side.
struct ChunkRuns {
  uint32_t first = 0;  // elements from the head's beginning
  uint32_t second = 0;
  uint32_t first_count = 0;
  uint32_t second_count = 0;
};

KVASIR_HOST_DEVICE inline ChunkRuns SideBySide(uint32_t from, uint32_t count) {
  const uint32_t first = count < kChunkPairs ? count : kChunkPairs;
  return {from, from + kChunkPairs, first, count - first};
}

KVASIR_HOST_DEVICE inline ChunkRuns RunsOf(const RopeShape& shape, uint32_t chunk) {
  const uint32_t pairs = shape.rotated_dims / 2;
  const uint32_t pair_chunks = PairChunks(shape);
  if (chunk >= pair_chunks) {
    const uint32_t from = shape.rotated_dims + (chunk - pair_chunks) * 2 * kChunkPairs;
    const uint32_t left = shape.head_dim - from;
    return SideBySide(from, left < 2 * kChunkPairs ? left : 2 * kChunkPairs);
  }
  const uint32_t pair = chunk * kChunkPairs;
  const uint32_t count = pairs - pair < kChunkPairs ? pairs - pair : kChunkPairs;
  if (shape.pairing == RopePairing::kInterleaved) {
    return SideBySide(2 * pair, 2 * count);
  }
  return {pair, pairs + pair, count, count};
}

// The factors of eight pairs of a turn.
struct ChunkTurn {
  float cosine[kChunkPairs];
  float sine[kChunkPairs];
};

KVASIR_HOST_DEVICE inline ChunkTurn LoadTurn(const RowRotation& rotation, uint32_t number,
                                             uint32_t chunk) {
  const uint32_t pairs = rotation.shape.rotated_dims / 2;
  const float* const at =
      rotation.turns + uint64_t{number} * rotation.shape.rotated_dims + chunk * kChunkPairs;
  ChunkTurn turn = {};
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < kChunkPairs; ++i) {
    if (chunk * kChunkPairs + i < pairs) {
      turn.cosine[i] = at[i];
      turn.sine[i] = at[pairs + i];
    }
  }
  return turn;
}

// `type` is that of the shape, where the compiler knows it.
KVASIR_HOST_DEVICE inline void RotateRowsThread(const RowRotation& rotation, RowType type,
                                                uint64_t block, uint32_t thread) {
  const RopeShape& shape = rotation.shape;
  const uint32_t chunks = RotateChunks(shape);
  const uint64_t item = block * kThreads + thread;
  const uint64_t row = item / chunks;
  if (row >= rotation.rows) {
    return;
  }
  const auto chunk = static_cast<uint32_t>(item - row * chunks);
  const ChunkRuns runs = RunsOf(shape, chunk);
  const auto element = static_cast<uint32_t>(ElementBytes(type));
  const uint32_t number = rotation.turn_of[row];
  const bool turns = number != kNoTurn && chunk < PairChunks(shape);
  const bool interleaved = shape.pairing == RopePairing::kInterleaved;
  const ChunkTurn turn = turns ? LoadTurn(rotation, number, chunk) : ChunkTurn{};
  const std::byte* from = rotation.from.At(row);
  std::byte* to = rotation.to.At(row);
  for (uint32_t head = 0; head < shape.kv_heads; ++head) {
    const uint64_t at = uint64_t{head} * shape.head_dim;
    const uint64_t first = (at + runs.first) * element;
    const uint64_t second = (at + runs.second) * element;
    if (!turns) {
      CopyBytes(from + first, to + first, uint64_t{runs.first_count} * element);
      CopyBytes(from + second, to + second, uint64_t{runs.second_count} * element);
      continue;
    }
    Eight a = LoadEight(type, from + first, runs.first_count);
    Eight b = LoadEight(type, from + second, runs.second_count);
    if (interleaved) {
      constexpr uint32_t kHalf = kChunkPairs / 2;
      KVASIR_DEVICE_UNROLL
      for (uint32_t i = 0; i < kHalf; ++i) {
        TurnPair(RopePairing::kInterleaved, turn.cosine[i], turn.sine[i], a.x[2 * i],
                 a.x[2 * i + 1]);
        TurnPair(RopePairing::kInterleaved, turn.cosine[i + kHalf], turn.sine[i + kHalf],
                 b.x[2 * i], b.x[2 * i + 1]);
      }
    } else {
      KVASIR_DEVICE_UNROLL
      for (uint32_t i = 0; i < kChunkPairs; ++i) {
        TurnPair(RopePairing::kHalfSplit, turn.cosine[i], turn.sine[i], a.x[i], b.x[i]);
      }
    }
    StoreEight(type, to + first, runs.first_count, a);
    StoreEight(type, to + second, runs.second_count, b);
  }
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ROTATE_ROWS_INL_H_
