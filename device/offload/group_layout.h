// GroupLayout: where the parts of a block group lie on both sides of an offload.
//
// On the host a group is one piece, layer after layer and the trailer last
// (proto/shm/group_geometry.h). On the device each part has a plane of its own, in which block b
// lies at plane + b * stride: attention of a layer wants that layer's blocks together. A part is a
// layer's K and V planes with the gap between them, or the trailer. Immutable.
#ifndef KVASIR_DEVICE_OFFLOAD_GROUP_LAYOUT_H_
#define KVASIR_DEVICE_OFFLOAD_GROUP_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "device/device.h"
#include "proto/shm/group_geometry.h"

namespace kvasir::device {

// One part on the device. `blocks` blocks, each so far from the one before as `stride_bytes` says.
struct DevicePlane {
  std::byte* base = nullptr;
  uint64_t stride_bytes = 0;
  uint32_t blocks = 0;
};

enum class CopyDirection { kToDevice, kToHost };

// A group in host memory and the block of every plane that it belongs in.
struct BlockPair {
  std::byte* host_group = nullptr;
  uint32_t device_block = 0;
  // The caller's number for the registered memory that host_group lies in: a strided copy never
  // leads from one into another.
  uint32_t host_range = 0;
};

// Copies of one step: either list may be empty.
struct StepCopies {
  std::vector<CopyPiece> pieces;
  std::vector<StridedPiece> strided;
};

class GroupLayout {
 public:
  // A plane for each layer, and, where the device has trailers as well, one more. Errors:
  // kInvalidArgument: another number of planes, or a stride below the part's bytes.
  static absl::StatusOr<GroupLayout> Create(const shm::GroupGeometry& geometry,
                                            std::vector<DevicePlane> planes);

  uint32_t parts() const { return static_cast<uint32_t>(parts_.size()); }
  uint64_t part_bytes(uint32_t part) const { return parts_[part].bytes; }
  uint64_t bytes() const { return bytes_; }  // of all parts of one group
  // OK, or kInvalidArgument naming the block that no plane has.
  absl::Status Check(std::span<const BlockPair> blocks) const;

  // One part of many groups. Runs that lie evenly on both sides become strided copies: for them the
  // transposition costs no call a block.
  StepCopies CopiesOfPart(uint32_t part, std::span<const BlockPair> blocks,
                          CopyDirection direction) const;
  // All parts of one group, as few pieces as lie apart.
  StepCopies CopiesOfGroup(const BlockPair& block, CopyDirection direction) const;

 private:
  struct Part {
    uint64_t host_off = 0, bytes = 0;
    DevicePlane plane;
  };
  explicit GroupLayout(std::vector<Part> parts, uint64_t bytes)
      : parts_(std::move(parts)), bytes_(bytes) {}

  std::vector<Part> parts_;
  uint64_t bytes_ = 0;
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_OFFLOAD_GROUP_LAYOUT_H_
