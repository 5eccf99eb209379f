#include "daemon/core/device_copy.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "allocator/device_memory.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/gather.h"

namespace kvasir::core {
namespace {

// Adds a piece, or makes the one before longer. Two extents may lie side by side, and a piece is of
// one: `starts` where a source of another group begins.
void Add(std::vector<device::CopyPiece>& pieces, std::byte* to, const std::byte* from,
         uint64_t bytes, bool starts = false) {
  if (bytes == 0) return;
  if (!pieces.empty() && !starts) {
    device::CopyPiece& last = pieces.back();
    if (last.dst + last.bytes == to && last.src + last.bytes == from) {
      last.bytes += bytes;
      return;
    }
  }
  pieces.push_back({to, from, bytes});
}

bool Turns(const GroupFill& fill, const LaneRope& rope) {
  return rope.rotate && std::any_of(fill.sources.begin(), fill.sources.end(),
                                    [](const SlotSource& source) { return source.rotate_by != 0; });
}

// Keys on their way through the processor: of each layer as they lie, and turned behind them.
struct TurnedKeys {
  TurnedKeys(DeviceMemory::Staging buffer, const GroupFill& fill) : staging(std::move(buffer)) {
    std::byte* at = staging.data();
    for (const shm::LayerRowBytes bytes : fill.group->geometry().row_bytes) {
      const uint64_t plane = PlaneOf(bytes, fill);
      layers.push_back({at, at + plane});
      at += 2 * plane;
    }
  }
  static uint64_t PlaneOf(shm::LayerRowBytes bytes, const GroupFill& fill) {
    return RoundUp(uint64_t{bytes.k} * fill.sources.size(), shm::kPlaneAlignment);
  }
  static uint64_t BytesFor(const GroupFill& fill) {
    uint64_t sum = 0;
    for (const shm::LayerRowBytes bytes : fill.group->geometry().row_bytes) {
      sum += 2 * PlaneOf(bytes, fill);
    }
    return sum;
  }

  DeviceMemory::Staging staging;
  struct Layer {
    std::byte *as_written, *turned;
  };
  std::vector<Layer> layers;
};

// Turns what has come, and puts it into the group.
absl::Status PutTurned(const GroupFill& fill, const LaneRope& rope, const TurnedKeys& keys,
                       DeviceMemory& memory) {
  const shm::GroupGeometry& geometry = fill.group->geometry();
  std::vector<int64_t> deltas;
  for (const SlotSource& source : fill.sources) deltas.push_back(source.rotate_by);
  std::vector<device::CopyPiece> pieces;
  for (size_t layer = 0; layer < geometry.k_off.size(); ++layer) {
    const uint64_t row_bytes = geometry.row_bytes[layer].k;
    std::vector<const std::byte*> rows;
    for (size_t i = 0; i < deltas.size(); ++i) {
      rows.push_back(keys.layers[layer].as_written + i * row_bytes);
    }
    kernels::GatherRotateRows(rope.layers[layer], rows, deltas, keys.layers[layer].turned);
    Add(pieces, fill.group->group().data() + geometry.k_off[layer], keys.layers[layer].turned,
        row_bytes * deltas.size());
  }
  return memory.Copy(pieces);
}

}  // namespace

absl::Status FillOnDevice(const GroupFill& fill, const LaneRope& rope) {
  const Group& group = fill.group->group();
  const shm::GroupGeometry& geometry = fill.group->geometry();
  KVASIR_CHECK(fill.group->columns() == 1 && fill.group->records() == nullptr &&
                   geometry.v_bits == 0 && !rope.heads_keep_own,
               "a device copies whole rows: columns={}", fill.group->columns());
  DeviceMemory& memory = *group.extent->device_rows()->device;
  std::optional<TurnedKeys> turned;
  if (Turns(fill, rope)) {
    KVASIR_ASSIGN_OR_RETURN(DeviceMemory::Staging staging,
                            memory.Borrow(TurnedKeys::BytesFor(fill)));
    turned.emplace(std::move(staging), fill);
  }
  std::vector<device::CopyPiece> pieces;
  for (size_t layer = 0; layer < geometry.k_off.size(); ++layer) {
    const shm::LayerRowBytes bytes = geometry.row_bytes[layer];
    std::byte* k_to =
        turned ? turned->layers[layer].as_written : group.data() + geometry.k_off[layer];
    const std::byte* before = nullptr;
    for (const SlotSource& source : fill.sources) {
      Add(pieces, k_to,
          source.group + source.geometry->k_off[layer] + uint64_t{source.slot} * bytes.k, bytes.k,
          std::exchange(before, source.group) != source.group);
      k_to += bytes.k;
    }
    before = nullptr;
    std::byte* v_to = group.data() + geometry.v_off[layer];
    for (const SlotSource& source : fill.sources) {
      Add(pieces, v_to,
          source.group + source.geometry->v_off[layer] + uint64_t{source.slot} * bytes.v, bytes.v,
          std::exchange(before, source.group) != source.group);
      v_to += bytes.v;
    }
  }
  KVASIR_RETURN_IF_ERROR(memory.Copy(pieces));
  if (turned) KVASIR_RETURN_IF_ERROR(PutTurned(fill, rope, *turned, memory));
  WriteTrailer(*fill.group);
  return absl::OkStatus();
}

}  // namespace kvasir::core
