#include "daemon/core/lane_table.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/encoding/row_code.h"

namespace kvasir::core {

absl::StatusOr<KeptShapes> MakeKeptShapes(const Model& model, std::span<const uint32_t> layers,
                                          const shm::TrailerShape& trailer, uint32_t v_bits) {
  std::vector<shm::LayerRowBytes> bytes, as_written;
  for (const uint32_t index : layers) {
    as_written.push_back(model.row_bytes()[index]);
    bytes.push_back(model.row_bytes()[index]);
    if (v_bits == 0) continue;
    const LayerShape& layer = model.description().layers[index];
    const kernels::RotatedRow code{.dims = layer.v_head_dim, .bits = v_bits};
    const absl::Status status = kernels::CheckRotatedRow(code);
    if (!status.ok()) {
      return InvalidArgument("values of a layer cannot be coded row by row: layer={} reason={}",
                             index, MessageOf(status));
    }
    bytes.back().v = layer.kv_heads * static_cast<uint32_t>(kernels::RotatedRowBytes(code));
  }
  const uint32_t slots = model.slots_per_block();
  KeptShapes shapes{shm::MakeGroupGeometry(bytes, slots, trailer),
                    shm::MakeGroupGeometry(bytes, shm::SmallGroupSlots(slots), trailer),
                    shm::MakeGroupGeometry(as_written, slots)};
  shapes.block.v_bits = shapes.small.v_bits = v_bits;
  return shapes;
}

absl::StatusOr<KeptShapes> KeptShapesFor(const Model& model, std::span<const uint32_t> layers,
                                         const RetentionPolicy& policy,
                                         const std::optional<EncodingSpec>& encoding) {
  const ScoreNeeds needs = policy.Needs();
  shm::TrailerShape kept;
  if (needs.source != ScoreSource::kNone && needs.source != ScoreSource::kLocalMass) {
    kept.position_sets = static_cast<uint32_t>(layers.size());
    if (!needs.shared_across_heads) {
      kept.position_sets = 0;
      for (const uint32_t layer : layers) {
        kept.position_sets += model.description().layers[layer].kv_heads;
      }
    }
  }
  const bool coded = encoding && policy.encodable().rows == EncodableRows::kOneByOne;
  return MakeKeptShapes(model, layers, kept, coded ? encoding->v_row_bits : 0);
}

std::vector<std::vector<uint32_t>> LayersOfLanes(std::span<const uint32_t> lane_of_layer,
                                                 size_t lanes) {
  std::vector<std::vector<uint32_t>> layers(lanes);
  for (uint32_t layer = 0; layer < lane_of_layer.size(); ++layer) {
    layers[lane_of_layer[layer]].push_back(layer);
  }
  return layers;
}

uint64_t LaneTable::WindowFirst(uint64_t row) const {
  const uint64_t first =
      records.empty() ? recent_first : std::max(records.front().first_row, records_from);
  const uint64_t low = window == 0 || row + 1 <= window ? 0 : row + 1 - window;
  return std::max(low, first);
}

void AddGroups(const TableVersion& version, GroupSet* groups) {
  for (const LaneTable& lane : version.lanes) {
    for (const KeptRun& run : lane.kept.runs()) groups->insert(run.group.get());
    for (const WindowRecord& record : lane.records) groups->insert(record.group.get());
  }
  for (const auto& group : version.filling) groups->insert(group.get());
}

}  // namespace kvasir::core
