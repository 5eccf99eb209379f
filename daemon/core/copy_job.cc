#include "daemon/core/copy_job.h"

#include <cstring>

#include "kernels/encoding/row_code.h"
#include "kernels/row_convert.h"

namespace kvasir::core {
namespace {

enum class Plane { kKey, kValue };

// One plane of one layer of the group that is filled.
struct PlaneCopy {
  const GroupFill& fill;
  size_t layer;
  Plane plane;

  uint64_t Offset(const shm::GroupGeometry& geometry) const {
    return plane == Plane::kKey ? geometry.k_off[layer] : geometry.v_off[layer];
  }
  // Of the sources, whose rows all lie as written, but for V in groups of coded values.
  uint64_t row_bytes() const {
    const shm::LayerRowBytes bytes = fill.sources.front().geometry->row_bytes[layer];
    return plane == Plane::kKey ? bytes.k : bytes.v;
  }
  std::byte* destination() const {
    return fill.group->group().data() + Offset(fill.group->geometry());
  }
  // Rows (or their pieces from byte `skip` on) of one column.
  std::vector<const std::byte*> Sources(uint32_t column, uint64_t skip) const {
    const size_t rows = fill.group->rows();
    std::vector<const std::byte*> sources(rows);
    for (size_t i = 0; i < rows; ++i) {
      const SlotSource& source = fill.sources[column * rows + i];
      sources[i] =
          source.group + Offset(*source.geometry) + uint64_t{source.slot} * row_bytes() + skip;
    }
    return sources;
  }
};

// A layer whose kv heads keep rows of their own: head by head, original positions.
void CopyHeads(const PlaneCopy& copy, uint32_t first_column, uint32_t kv_heads) {
  const uint64_t piece = copy.row_bytes() / kv_heads;
  for (uint32_t head = 0; head < kv_heads; ++head) {
    kernels::GatherPieces(copy.Sources(first_column + head, head * piece), piece,
                          copy.destination() + head * piece, copy.row_bytes());
  }
}

// Values in the group's code, a row of a kv head at a time: moved where they are coded already,
// else coded, from what is read of the row once.
void CodeValues(const PlaneCopy& copy, uint32_t first_column, bool heads_keep_own,
                const kernels::RopeShape& shape) {
  const shm::GroupGeometry& geometry = copy.fill.group->geometry();
  const uint32_t stride = geometry.row_bytes[copy.layer].v;
  const uint32_t bytes = stride / shape.kv_heads;
  const kernels::RotatedRow code{.dims = (bytes - 1) * 8 / geometry.v_bits,
                                 .bits = geometry.v_bits};
  std::vector<float> row(code.dims);
  for (uint32_t head = 0; head < shape.kv_heads; ++head) {
    const size_t column = first_column + (heads_keep_own ? head : 0);
    for (size_t i = 0; i < copy.fill.group->rows(); ++i) {
      const SlotSource& source = copy.fill.sources[column * copy.fill.group->rows() + i];
      const std::byte* const from =
          source.group + copy.Offset(*source.geometry) +
          uint64_t{source.slot} * source.geometry->row_bytes[copy.layer].v;
      std::byte* const to = copy.destination() + i * stride + size_t{head} * bytes;
      if (source.geometry->v_bits > 0) {
        std::memcpy(to, from + size_t{head} * bytes, bytes);
        continue;
      }
      for (uint32_t dim = 0; dim < code.dims; ++dim) {
        row[dim] = kernels::LoadElement(shape.type, from, size_t{head} * code.dims + dim);
      }
      kernels::EncodeRotatedRow(code, row.data(), to);
    }
  }
}

void CopyRows(const PlaneCopy& copy, uint32_t column, const kernels::RopeShape& shape,
              const std::vector<int64_t>& deltas) {
  if (!deltas.empty() && copy.plane == Plane::kKey) {
    kernels::GatherRotateRows(shape, copy.Sources(column, 0), deltas, copy.destination());
  } else {
    // Of a large group it is a small part, but the group as a whole does not fit the cache.
    kernels::GatherRows(copy.Sources(column, 0), copy.row_bytes(), copy.destination(),
                        copy.fill.group->geometry().bytes);
  }
}

// One record for each kv head of the layer, its keys turned on the way.
void EncodeRecords(const PlaneCopy& copy, const LaneRecords& records,
                   const kernels::RopeShape& shape, const std::vector<int64_t>& deltas) {
  const LaneRecords::Layer& layer = records.layers[copy.layer];
  const bool key = copy.plane == Plane::kKey;
  const kernels::RecordShape& record = key ? layer.k : layer.v;
  const uint64_t bytes = kernels::RecordBytes(record);
  const uint64_t piece = copy.row_bytes() / layer.kv_heads;
  kernels::RecordTurn turn;
  if (key) turn = {shape, deltas};
  turn.rope.kv_heads = 1;
  for (uint32_t head = 0; head < layer.kv_heads; ++head) {
    kernels::EncodeRecord(record, copy.Sources(0, head * piece), turn,
                          key ? records.Weights(copy.layer, head) : std::span<const float>(),
                          copy.destination() + head * bytes);
  }
}

// By how much each row is turned; empty where none is.
std::vector<int64_t> Deltas(const GroupFill& fill, const LaneRope& rope) {
  std::vector<int64_t> deltas;
  bool turns = false;
  for (const SlotSource& source : fill.sources) {
    deltas.push_back(source.rotate_by);
    turns |= source.rotate_by != 0;
  }
  if (!rope.rotate || !turns) deltas.clear();
  return deltas;
}

// Calls `entry(offset in the trailer, value)` for every word of it that a slot fills.
template <typename Entry>
void ForTrailer(const KeptGroup& group, const Entry& entry) {
  const shm::GroupGeometry& geometry = group.geometry();
  for (uint32_t column = 0; column < group.columns(); ++column) {
    for (uint32_t i = 0; i < group.rows(); ++i) {
      const KeptSlot& slot = group.Slot(column, i);
      const uint64_t at = 4 * (uint64_t{column} * geometry.slots + i);
      entry(at, static_cast<uint32_t>(slot.row));
      entry(geometry.tok_off - geometry.pos_off + at, slot.token);
    }
  }
}

}  // namespace

void WriteTrailer(const KeptGroup& group) {
  std::byte* const base = group.group().trailer(group.geometry().pos_off);
  ForTrailer(group, [&](uint64_t at, uint32_t value) { std::memcpy(base + at, &value, 4); });
}

bool HasTrailer(const KeptGroup& group) {
  const std::byte* const base = group.group().trailer(group.geometry().pos_off);
  bool has = true;
  ForTrailer(group,
             [&](uint64_t at, uint32_t value) { has &= std::memcmp(base + at, &value, 4) == 0; });
  return has;
}

void FillGroup(const GroupFill& fill, const LaneRope& rope) {
  const shm::GroupGeometry& geometry = fill.group->geometry();
  const std::vector<int64_t> deltas = Deltas(fill, rope);
  uint32_t column = 0;  // of the layer's first head
  for (size_t layer = 0; layer < geometry.k_off.size(); ++layer) {
    const kernels::RopeShape& shape = rope.layers[layer];
    for (const Plane plane : {Plane::kKey, Plane::kValue}) {
      const PlaneCopy copy{fill, layer, plane};
      if (copy.row_bytes() == 0) continue;
      if (plane == Plane::kValue && geometry.v_bits > 0) {
        CodeValues(copy, column, rope.heads_keep_own, shape);
      } else if (fill.group->records() != nullptr) {
        EncodeRecords(copy, *fill.group->records(), shape, deltas);
      } else if (rope.heads_keep_own) {
        CopyHeads(copy, column, shape.kv_heads);
      } else {
        CopyRows(copy, column, shape, deltas);
      }
    }
    if (fill.group->columns() > 1) column += rope.heads_keep_own ? shape.kv_heads : 1;
  }
  WriteTrailer(*fill.group);
}

}  // namespace kvasir::core
