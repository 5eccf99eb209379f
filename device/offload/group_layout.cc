#include "device/offload/group_layout.h"

#include "base/error.h"

namespace kvasir::device {
namespace {

CopyPiece PieceOf(std::byte* host, std::byte* device, uint64_t bytes, CopyDirection direction) {
  if (direction == CopyDirection::kToDevice) return {device, host, bytes};
  return {host, device, bytes};
}

}  // namespace

absl::StatusOr<GroupLayout> GroupLayout::Create(const shm::GroupGeometry& geometry,
                                                std::vector<DevicePlane> planes) {
  const uint64_t layers = geometry.k_off.size();
  if (planes.empty() || (planes.size() != layers && planes.size() != layers + 1)) {
    return InvalidArgument(
        "GroupLayout: a plane for each layer, and one for the trailer if the device has it: "
        "planes={} layers={}",
        planes.size(), layers);
  }
  std::vector<Part> parts;
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < planes.size(); ++i) {
    const uint64_t begin = i < layers ? geometry.k_off[i] : geometry.pos_off;
    const uint64_t end = i + 1 < layers    ? geometry.k_off[i + 1]
                         : i + 1 == layers ? geometry.pos_off
                                           : geometry.bytes;
    if (planes[i].stride_bytes < end - begin) {
      return InvalidArgument(
          "GroupLayout: stride_bytes is below the part: part={} stride_bytes={} "
          "min={}",
          i, planes[i].stride_bytes, end - begin);
    }
    parts.push_back({begin, end - begin, planes[i]});
    bytes += end - begin;
  }
  return GroupLayout(std::move(parts), bytes);
}

absl::Status GroupLayout::Check(std::span<const BlockPair> blocks) const {
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    for (uint32_t part = 0; part < parts(); ++part) {
      if (blocks[i].device_block >= parts_[part].plane.blocks) {
        return InvalidArgument(
            "device_block is beyond its plane: index={} device_block={} part={} blocks={}", i,
            blocks[i].device_block, part, parts_[part].plane.blocks);
      }
    }
  }
  return absl::OkStatus();
}

StepCopies GroupLayout::CopiesOfPart(uint32_t number, std::span<const BlockPair> blocks,
                                     CopyDirection direction) const {
  const Part& part = parts_[number];
  const auto host = [&](uint64_t i) { return blocks[i].host_group + part.host_off; };
  const auto device = [&](uint64_t i) {
    return part.plane.base + blocks[i].device_block * part.plane.stride_bytes;
  };
  StepCopies copies;
  for (uint64_t first = 0; first < blocks.size();) {
    // As long as both sides go on with the same stride.
    uint64_t next = first + 1;
    if (next < blocks.size() && blocks[next].host_range == blocks[first].host_range) {
      const auto host_step = host(next) - host(first), device_step = device(next) - device(first);
      const auto least = static_cast<std::ptrdiff_t>(part.bytes);
      if (host_step >= least && device_step >= least) {
        while (next < blocks.size() && blocks[next].host_range == blocks[first].host_range &&
               host(next) - host(next - 1) == host_step &&
               device(next) - device(next - 1) == device_step) {
          ++next;
        }
      }
      if (next - first > 1) {
        StridedPiece piece{.dst = device(first),
                           .dst_stride = static_cast<uint64_t>(device_step),
                           .src = host(first),
                           .src_stride = static_cast<uint64_t>(host_step),
                           .row_bytes = part.bytes,
                           .rows = next - first};
        if (direction == CopyDirection::kToHost) {
          piece.dst = host(first);
          piece.src = device(first);
          std::swap(piece.dst_stride, piece.src_stride);
        }
        copies.strided.push_back(piece);
        first = next;
        continue;
      }
    }
    copies.pieces.push_back(PieceOf(host(first), device(first), part.bytes, direction));
    first = next;
  }
  return copies;
}

StepCopies GroupLayout::CopiesOfGroup(const BlockPair& block, CopyDirection direction) const {
  StepCopies copies;
  copies.pieces.reserve(parts_.size());
  for (const Part& part : parts_) {
    const CopyPiece piece = PieceOf(block.host_group + part.host_off,
                                    part.plane.base + block.device_block * part.plane.stride_bytes,
                                    part.bytes, direction);
    if (!copies.pieces.empty()) {
      CopyPiece& last = copies.pieces.back();
      if (last.dst + last.bytes == piece.dst && last.src + last.bytes == piece.src) {
        last.bytes += piece.bytes;
        continue;
      }
    }
    copies.pieces.push_back(piece);
  }
  return copies;
}

}  // namespace kvasir::device
