// What a thread of MovePlanes() does: a block moves a tile of 16 KiB of one plane of one group.
#ifndef KVASIR_KERNELS_CUDA_MOVE_PLANES_INL_H_
#define KVASIR_KERNELS_CUDA_MOVE_PLANES_INL_H_

#include "kernels/cuda/copy_rows-inl.h"
#include "kernels/cuda/move_planes.h"

namespace kvasir::kernels::cuda {

KVASIR_HOST_DEVICE inline uint64_t PlaneTiles(const PlaneMove& move) {
  return CeilDivide(UnitsOf(move.plane_bytes), kCopyUnits);
}

// Tiles of a plane follow each other, then planes: the way a group lies.
KVASIR_HOST_DEVICE inline uint64_t PlaneBlocks(const PlaneMove& move) {
  return PlaneTiles(move) * move.plane_count * move.group_count;
}

KVASIR_HOST_DEVICE inline void MovePlanesThread(const PlaneMove& move, uint64_t block,
                                                uint32_t thread) {
  const uint64_t tiles = PlaneTiles(move);
  const uint64_t pair = block / tiles;
  const uint64_t group = pair / move.plane_count;
  const Plane plane = move.planes[pair - group * move.plane_count];
  std::byte* in_group = move.groups[group] + plane.offset;
  std::byte* in_pool = plane.pool + move.blocks[group] * plane.stride;
  const bool to_pool = move.direction == Direction::kToPools;
  Piece pieces[kCopyDepth];
  KVASIR_DEVICE_UNROLL
  for (uint32_t i = 0; i < kCopyDepth; ++i) {
    const uint64_t unit = (block - pair * tiles) * kCopyUnits + i * kThreads + thread;
    const uint64_t byte = unit * kUnit;
    if (byte >= plane.bytes) {
      continue;
    }
    pieces[i].from = (to_pool ? in_group : in_pool) + byte;
    pieces[i].to = (to_pool ? in_pool : in_group) + byte;
    const uint64_t left = plane.bytes - byte;
    pieces[i].bytes = left < kUnit ? static_cast<uint32_t>(left) : kUnit;
  }
  MovePieces(pieces);
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_MOVE_PLANES_INL_H_
