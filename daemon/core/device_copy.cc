#include "daemon/core/device_copy.h"

#include <algorithm>
#include <vector>

#include "allocator/device_memory.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/gather.h"

namespace kvasir::core {
namespace {

// The different turns of a group's rows, and which each source takes.
struct Turns {
  explicit Turns(const GroupFill& fill) {
    for (const SlotSource& source : fill.sources) {
      if (source.rotate_by == 0) {
        of.push_back(device::kNoTurn);
        continue;
      }
      const auto found = std::find(deltas.begin(), deltas.end(), source.rotate_by);
      of.push_back(static_cast<uint32_t>(found - deltas.begin()));
      if (found == deltas.end()) deltas.push_back(source.rotate_by);
    }
  }
  std::vector<int64_t> deltas;
  std::vector<uint32_t> of;
};

// Rows of all planes that one gather takes.
struct Batch {
  uint64_t row_bytes = 0;
  const kernels::RopeShape* rope = nullptr;  // null: none is turned
  std::vector<device::RowMove> rows;
  std::vector<float> factors;
};

Batch& BatchOf(uint64_t row_bytes, const kernels::RopeShape* rope, const Turns& turns,
               std::vector<Batch>& batches) {
  for (Batch& batch : batches) {
    const bool alike =
        batch.rope == rope || (batch.rope != nullptr && rope != nullptr && *batch.rope == *rope);
    if (alike && batch.row_bytes == row_bytes) return batch;
  }
  Batch& batch = batches.emplace_back();
  batch.row_bytes = row_bytes;
  batch.rope = rope;
  if (rope != nullptr) {
    batch.factors.resize(turns.deltas.size() * rope->rotated_dims);
    kernels::MakeTurns(*rope, turns.deltas, batch.factors.data());
  }
  return batch;
}

// Adds the rows of a plane, which lies at offset[layer] of a group.
void AddPlane(const GroupFill& fill, size_t layer,
              std::vector<uint64_t> shm::GroupGeometry::*offset, const Turns& turns, Batch& batch) {
  std::byte* to = fill.group->group().data() + (fill.group->geometry().*offset)[layer];
  for (size_t i = 0; i < fill.sources.size(); ++i) {
    const SlotSource& source = fill.sources[i];
    const std::byte* from = source.group + (source.geometry->*offset)[layer];
    batch.rows.push_back({to, from + uint64_t{source.slot} * batch.row_bytes,
                          batch.rope != nullptr ? turns.of[i] : device::kNoTurn});
    to += batch.row_bytes;
  }
}

}  // namespace

absl::Status FillOnDevice(const GroupFill& fill, const LaneRope& rope) {
  const Group& group = fill.group->group();
  const shm::GroupGeometry& geometry = fill.group->geometry();
  KVASIR_CHECK(fill.group->columns() == 1 && fill.group->records() == nullptr &&
                   geometry.v_bits == 0 && !rope.heads_keep_own,
               "a device copies whole rows: columns={}", fill.group->columns());
  const Turns turns(fill);
  const bool turned = rope.rotate && !turns.deltas.empty();
  std::vector<Batch> batches;
  for (size_t layer = 0; layer < geometry.k_off.size(); ++layer) {
    const shm::LayerRowBytes bytes = geometry.row_bytes[layer];
    const kernels::RopeShape* const shape = turned ? &rope.layers[layer] : nullptr;
    AddPlane(fill, layer, &shm::GroupGeometry::k_off, turns,
             BatchOf(bytes.k, shape, turns, batches));
    if (bytes.v == 0) continue;
    AddPlane(fill, layer, &shm::GroupGeometry::v_off, turns,
             BatchOf(bytes.v, nullptr, turns, batches));
  }
  std::vector<device::RowGather> gathers;
  for (const Batch& batch : batches) {
    gathers.push_back({batch.rows, batch.row_bytes, batch.rope, batch.factors});
  }
  KVASIR_RETURN_IF_ERROR(group.extent->device_rows()->device->Gather(gathers));
  WriteTrailer(*fill.group);
  return absl::OkStatus();
}

}  // namespace kvasir::core
