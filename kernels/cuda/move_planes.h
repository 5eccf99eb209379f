// Moves block groups between the host's layout and the device's.
//
// A group in host memory holds the blocks of all layers one behind the other; on the device each
// layer has a pool of its own, where attention finds its blocks together. What is moved for one
// group and one plane is contiguous on both sides: a plane is a layer's block, or its K or V half
// where an engine keeps those in two pools. Host groups have to be reachable from the device
// (pinned or registered). Asynchronous, thread-safe, as copy_rows.h; one launch for all groups and
// planes.
#ifndef KVASIR_KERNELS_CUDA_MOVE_PLANES_H_
#define KVASIR_KERNELS_CUDA_MOVE_PLANES_H_

#include <cstddef>
#include <cstdint>

#include <absl/status/status.h>

#include "kernels/cuda/rows.h"

namespace kvasir::kernels::cuda {

struct Plane {
  std::byte* pool = nullptr;  // of the device: block b of the plane at pool + b * stride
  uint64_t stride = 0;        // bytes
  uint64_t offset = 0;        // bytes from the beginning of a group
  uint64_t bytes = 0;         // at most PlaneMove::plane_bytes
};

enum class Direction : uint8_t { kToPools, kToGroups };

struct PlaneMove {
  const Plane* planes = nullptr;       // [plane_count]
  std::byte* const* groups = nullptr;  // [group_count]
  const uint32_t* blocks = nullptr;    // [group_count]: of each group in every pool
  uint32_t plane_count = 0;
  uint32_t group_count = 0;  // 0: nothing happens
  uint64_t plane_bytes = 0;  // of the largest plane, 1 to 2^30
  Direction direction = Direction::kToPools;
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckPlaneMove(const PlaneMove& move);

// Errors: those of CheckPlaneMove(); kUnavailable when the runtime refuses the launch.
absl::Status MovePlanes(const PlaneMove& move, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_MOVE_PLANES_H_
