#include "daemon/core/row_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "kernels/row_convert.h"

namespace kvasir::core {
namespace {

// Where a row of one plane of the `layer`th layer of the lane goes.
std::byte* RowOf(const RowSource::Destination& to, uint64_t row, size_t layer, bool keys) {
  const shm::GroupGeometry& block = *to.block;
  const uint64_t off = keys ? block.k_off[layer] : block.v_off[layer];
  const uint64_t bytes = keys ? block.row_bytes[layer].k : block.row_bytes[layer].v;
  return to.blocks[row / block.slots - to.first_block] + off + row % block.slots * bytes;
}

}  // namespace

absl::StatusOr<RowSource> RowSource::Of(std::shared_ptr<const Snapshot> snapshot) {
  RowSource source(std::move(snapshot));
  const Snapshot& from = source.snapshot();
  if (from.lanes.size() != 1 || !from.lanes.front().policy->KeepsAll() ||
      from.lanes.front().kept_shapes->block.v_bits > 0) {
    return FailedPrecondition("rows of the prefix were dropped or coded one by one: retention={}",
                              from.retention);
  }
  const LaneTable& table = from.table.lanes.front();
  for (const KeptRun& run : table.kept.runs()) source.AddKept(run);
  for (const WindowRecord& record : table.records) {
    source.AddKept({record.group, 0, record.group->rows()});
  }
  // Blocks of rows that nobody has moved yet are laid out as kept ones of the same rows.
  const Snapshot::Lane& lane = from.lanes.front();
  const shm::GroupGeometry& block = lane.kept_shapes->block;
  uint64_t row = table.recent_first;
  for (const Group& group : lane.recent_groups()) {
    const uint64_t last = std::min(from.rows, RoundDown(row, block.slots) + block.slots);
    if (row == last) break;
    source.places_.push_back(
        {row, last - row, group.data(), &block, row % block.slots, nullptr, nullptr});
    row = last;
  }
  std::sort(source.places_.begin(), source.places_.end(),
            [](const Place& a, const Place& b) { return a.first_row < b.first_row; });
  uint64_t next = 0;
  for (const Place& place : source.places_) {
    if (place.first_row != next) break;
    next += place.rows;
  }
  if (next != from.rows) {
    return FailedPrecondition("rows of the prefix do not lie in their order: row={} rows={}", next,
                              from.rows);
  }
  return source;
}

// Rows of a run need not follow each other: first rows and others may share a group.
void RowSource::AddKept(const KeptRun& run) {
  const KeptGroup& group = *run.group;
  for (uint32_t slot = run.first_slot; slot < run.first_slot + run.rows; ++slot) {
    const KeptSlot* const at = &group.slots[slot];
    if (slot > run.first_slot && at->row == (at - 1)->row + 1) {
      ++places_.back().rows;
      continue;
    }
    places_.push_back(
        {at->row, 1, group.group().data(), &group.geometry(), slot, group.records(), at});
  }
}

const RowSource::Place& RowSource::PlaceOf(uint64_t row) const {
  return *std::prev(
      std::upper_bound(places_.begin(), places_.end(), row,
                       [](uint64_t r, const Place& place) { return r < place.first_row; }));
}

RowSource::Stretch RowSource::StretchOf(uint64_t row) const {
  const Place& place = PlaceOf(row);
  return {place.first_row, place.first_row + place.rows, place.records != nullptr};
}

TokenId RowSource::TokenOf(uint64_t row) const {
  const Place& place = PlaceOf(row);
  return place.slots != nullptr ? place.slots[row - place.first_row].token
                                : snapshot_->tokens[row - snapshot_->tokens_base];
}

void RowSource::CopyRows(const Place& place, uint64_t first, uint64_t last,
                         const Destination& to) const {
  for (size_t i = 0; i < to.layers->size(); ++i) {
    const uint32_t layer = (*to.layers)[i];
    const shm::LayerRowBytes bytes = place.geometry->row_bytes[layer];
    for (uint64_t row = first; row < last;) {
      const uint64_t end = std::min(last, RoundDown(row, to.block->slots) + to.block->slots);
      const uint64_t slot = place.first_slot + row - place.first_row;
      std::memcpy(RowOf(to, row, i, true),
                  place.group + place.geometry->k_off[layer] + slot * bytes.k,
                  (end - row) * bytes.k);
      std::memcpy(RowOf(to, row, i, false),
                  place.group + place.geometry->v_off[layer] + slot * bytes.v,
                  (end - row) * bytes.v);
      row = end;
    }
  }
}

void RowSource::DecodeRows(const Place& place, uint64_t first, uint64_t last,
                           const Destination& to) const {
  std::vector<float> rows;
  for (size_t i = 0; i < to.layers->size(); ++i) {
    const LaneRecords::Layer& layer = place.records->layers[(*to.layers)[i]];
    for (const bool keys : {true, false}) {
      const kernels::RecordShape& shape = keys ? layer.k : layer.v;
      const std::byte* record =
          place.group + (keys ? place.geometry->k_off : place.geometry->v_off)[(*to.layers)[i]];
      rows.resize(size_t{shape.rows} * shape.dims);
      for (uint32_t head = 0; head < layer.kv_heads; ++head) {
        kernels::DecodeRecord(shape, record, rows.data());
        record += kernels::RecordBytes(shape);
        for (uint64_t row = first; row < last; ++row) {
          const float* const from =
              rows.data() + (place.first_slot + row - place.first_row) * shape.dims;
          std::byte* const at = RowOf(to, row, i, keys);
          for (uint32_t dim = 0; dim < shape.dims; ++dim) {
            kernels::StoreElement(shape.type, at, size_t{head} * shape.dims + dim, from[dim]);
          }
        }
      }
    }
  }
}

void RowSource::Write(uint64_t first, uint64_t last, const Destination& to) const {
  const Place& place = PlaceOf(first);
  if (place.records != nullptr) {
    DecodeRows(place, first, last, to);
  } else {
    CopyRows(place, first, last, to);
  }
  if (!to.with_tokens) return;
  for (uint64_t row = first; row < last; ++row) {
    const TokenId token = TokenOf(row);
    std::memcpy(to.blocks[row / to.block->slots - to.first_block] + to.block->tok_off +
                    4 * (row % to.block->slots),
                &token, sizeof(token));
  }
}

}  // namespace kvasir::core
