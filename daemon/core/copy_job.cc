#include "daemon/core/copy_job.h"

#include <cstring>

namespace kvasir::core {

void FillGroup(const GroupFill& fill, const LaneRope& rope) {
  const shm::GroupGeometry& geometry = fill.group->geometry();
  std::byte* const base = fill.group->group().data();
  const size_t rows = fill.sources.size();
  std::vector<const std::byte*> sources(rows);
  std::vector<int64_t> deltas(rows);
  bool turns = false;
  for (size_t i = 0; i < rows; ++i) {
    deltas[i] = fill.sources[i].rotate_by;
    turns |= deltas[i] != 0;
  }
  for (size_t layer = 0; layer < geometry.k_off.size(); ++layer) {
    const shm::LayerRowBytes bytes = geometry.row_bytes[layer];
    for (size_t i = 0; i < rows; ++i) {
      const SlotSource& source = fill.sources[i];
      sources[i] = source.group + source.geometry->k_off[layer] + uint64_t{source.slot} * bytes.k;
    }
    if (rope.rotate && turns) {
      kernels::GatherRotateRows(rope.layers[layer], sources, deltas, base + geometry.k_off[layer]);
    } else {
      kernels::GatherRows(sources, bytes.k, base + geometry.k_off[layer]);
    }
    if (bytes.v == 0) continue;
    for (size_t i = 0; i < rows; ++i) {
      const SlotSource& source = fill.sources[i];
      sources[i] = source.group + source.geometry->v_off[layer] + uint64_t{source.slot} * bytes.v;
    }
    kernels::GatherRows(sources, bytes.v, base + geometry.v_off[layer]);
  }
  for (size_t i = 0; i < rows; ++i) {
    const auto row = static_cast<uint32_t>(fill.group->slots[i].row);
    const uint32_t token = fill.group->slots[i].token;
    std::memcpy(base + geometry.pos_off + 4 * i, &row, 4);
    std::memcpy(base + geometry.tok_off + 4 * i, &token, 4);
  }
}

}  // namespace kvasir::core
