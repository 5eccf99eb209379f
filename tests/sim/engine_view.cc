// What a query of a simulated engine sees, compared with what it should see.
#include <algorithm>
#include <cstring>

#include "daemon/core/record_format.h"
#include "kernels/encoding/record.h"
#include "tests/sim/engine.h"

#include <fmt/ranges.h>

namespace kvasir::sim {
namespace {

uint32_t LoadWord(const std::byte* at) {
  uint32_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

const shm::LaneSpan* SpansOf(const std::byte* d, const shm::VersionDesc& table) {
  return reinterpret_cast<const shm::LaneSpan*>(d + table.lanes_off);
}

}  // namespace

bool Engine::IsRight(const Stream& stream, uint64_t row, uint32_t layer, uint32_t plane,
                     const std::byte* data) const {
  const uint64_t chain = stream.text.chains[row];
  const uint64_t own = RowKey(Writer(place_.tenant, stream.model), chain, row);
  if (IsRow(RowOf(own, layer, plane), data)) return true;
  if (row >= stream.text.shared_rows) return false;
  const uint64_t shared = RowKey(Writer(place_.sharing_tenant, stream.model), chain, row);
  return IsRow(RowOf(shared, layer, plane), data);
}

bool Engine::IsNear(const Stream& stream, uint64_t row, uint32_t layer, uint32_t plane,
                    const float* data) const {
  const uint64_t chain = stream.text.chains[row];
  const uint64_t own = RowKey(Writer(place_.tenant, stream.model), chain, row);
  if (IsNearRow(RowOf(own, layer, plane), data)) return true;
  if (row >= stream.text.shared_rows) return false;
  const uint64_t shared = RowKey(Writer(place_.sharing_tenant, stream.model), chain, row);
  return IsNearRow(RowOf(shared, layer, plane), data);
}

void Engine::SeeRecords(const Stream& stream, const shm::LaneSpan& span, const shm::RunEntry& run,
                        const Stream::Lane& lane, size_t layer_in_lane, uint64_t query,
                        const std::byte* base) {
  const core::LaneRecords& records = *lane.records;
  const core::LaneRecords::Layer& shape = records.layers[layer_in_lane];
  const shm::GroupGeometry& geometry = records.geometry;
  const std::byte* const k = base + geometry.k_off[layer_in_lane];
  const std::byte* const v = base + geometry.v_off[layer_in_lane];
  if (!kernels::CheckRecord(shape.k, k).ok() || !kernels::CheckRecord(shape.v, v).ok()) {
    findings_.Add("a record is none: sequence={} offset={}", stream.id, run.group_off);
    return;
  }
  keys_.resize(size_t{shape.k.rows} * kDims);
  values_.resize(size_t{shape.v.rows} * kDims);
  kernels::DecodeRecord(shape.k, k, keys_.data());
  kernels::DecodeRecord(shape.v, v, values_.data());
  uint64_t low = span.records_from;
  if (span.window != 0 && query + 1 > span.window) low = std::max(low, query + 1 - span.window);
  for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
    const uint64_t row = LoadWord(base + geometry.pos_off + 4 * s);
    if (run.flags == shm::kRunWindowed && row < low) continue;
    if (row >= span.recent_first || row >= stream.rows()) {
      findings_.Add("a record has a row that is not there: sequence={} row={}", stream.id, row);
      return;
    }
    seen_.push_back(row);
    const bool token = LoadWord(base + geometry.tok_off + 4 * s) == stream.text.tokens[row];
    if (token && IsNear(stream, row, shape.index, 0, keys_.data() + size_t{s} * kDims) &&
        IsNear(stream, row, shape.index, 1, values_.data() + size_t{s} * kDims)) {
      continue;
    }
    findings_.Add("an encoded row is not what was written: tenant={} sequence={} row={} token={}",
                  place_.tenant, stream.id, row, token);
    return;
  }
}

void Engine::SeeRun(const Stream& stream, const shm::LaneSpan& span, const shm::RunEntry& run,
                    size_t l, size_t layer_in_lane, uint64_t query) {
  const Stream::Lane& lane = stream.lanes[l];
  const bool encoded = run.encoding != 0;
  const shm::GroupGeometry& geometry = encoded                     ? lane.records->geometry
                                       : run.group_slots == kSlots ? lane.block
                                                                   : lane.small;
  if (run.group_slots != geometry.slots || run.first_slot + run.rows > geometry.slots) {
    findings_.Add("a run does not lie in its group: sequence={} slots={} first={} rows={}",
                  stream.id, run.group_slots, run.first_slot, run.rows);
    return;
  }
  const std::byte* const base =
      At(run.extent, run.generation, run.group_off, geometry.bytes, /*recent=*/false);
  if (base == nullptr) return;
  if (encoded) return SeeRecords(stream, span, run, lane, layer_in_lane, query, base);
  const uint32_t layer = lane.layers[layer_in_lane];
  // A column for each layer (it has one head), or one for all.
  const uint64_t column = geometry.trailer.position_sets > 1 ? layer_in_lane : 0;
  for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
    const uint64_t at = 4 * (column * geometry.slots + s);
    const uint64_t row = LoadWord(base + geometry.pos_off + at);
    if (row >= span.recent_first || row >= stream.rows()) {
      findings_.Add("a kept row is not there: tenant={} sequence={} row={}", place_.tenant,
                    stream.id, row);
      return;
    }
    seen_.push_back(row);
    const bool token = LoadWord(base + geometry.tok_off + at) == stream.text.tokens[row];
    if (token &&
        IsRight(stream, row, layer, 0, base + geometry.k_off[layer_in_lane] + s * kRowBytes) &&
        IsRight(stream, row, layer, 1, base + geometry.v_off[layer_in_lane] + s * kRowBytes)) {
      continue;
    }
    findings_.Add("a kept row is not what was written: tenant={} sequence={} row={} token={}",
                  place_.tenant, stream.id, row, token);
    return;
  }
}

void Engine::CheckLayer(const Stream& stream, size_t l, size_t layer_in_lane) {
  const shm::VersionDesc& table = board(stream.slot).v[stream.adopted & 1];
  if (table.version != stream.adopted || table.lanes != stream.lanes.size()) {
    findings_.Add("the table in use is another: sequence={} version={} adopted={}", stream.id,
                  table.version, stream.adopted);
    return;
  }
  const uint64_t query = stream.rows() - 1;
  const shm::LaneSpan& span = SpansOf(d_.get(), table)[l];
  const auto* runs = reinterpret_cast<const shm::RunEntry*>(d_.get() + span.runs_off);
  const auto* sticky = reinterpret_cast<const uint64_t*>(d_.get() + span.sticky_off);
  seen_.clear();
  for (uint32_t r = 0; r < span.runs && !findings_.any(); ++r) {
    SeeRun(stream, span, runs[r], l, layer_in_lane, query);
  }
  const size_t kept = seen_.size();
  uint64_t low = span.recent_first;
  if (span.window != 0 && query + 1 > span.window) low = std::max(low, query + 1 - span.window);
  for (uint32_t i = 0; i < span.sticky; ++i) {
    if (sticky[i] < low && sticky[i] <= query) seen_.push_back(sticky[i]);
  }
  for (uint64_t row = low; row <= query; ++row) seen_.push_back(row);
  const Stream::Lane& lane = stream.lanes[l];
  const uint32_t layer = lane.layers[layer_in_lane];
  for (size_t i = kept; i < seen_.size() && !findings_.any(); ++i) {
    const uint64_t row = seen_[i], slot = row % kSlots;
    const std::byte* const base = RecentRow(stream, row, static_cast<uint32_t>(l));
    if (base == nullptr) return;
    if (IsRight(stream, row, layer, 0,
                base + lane.recent.k_off[layer_in_lane] + slot * kRowBytes) &&
        IsRight(stream, row, layer, 1,
                base + lane.recent.v_off[layer_in_lane] + slot * kRowBytes)) {
      continue;
    }
    findings_.Add("a recent row is not what was written: tenant={} sequence={} row={}",
                  place_.tenant, stream.id, row);
  }
  if (findings_.any()) return;
  std::sort(seen_.begin(), seen_.end());
  const Retention& retention = *stream.retention;
  if (!retention.scored) {
    retention.Visible(stream.text.tokens, query, layer, &expected_);
    if (seen_ == expected_) return;
    findings_.Add("other rows are visible: sequence={} retention={} query={} seen={} expected={}",
                  stream.id, retention.spec, query, fmt::join(seen_, ","),
                  fmt::join(expected_, ","));
    return;
  }
  const uint64_t last = std::min(retention.window, stream.rows());
  bool right = seen_.size() <= retention.visible_max && seen_.size() >= last;
  for (uint64_t i = 1; right && i <= last; ++i) {
    right = seen_[seen_.size() - i] == stream.rows() - i;
  }
  right = right && std::adjacent_find(seen_.begin(), seen_.end()) == seen_.end();
  if (right) return;
  findings_.Add("rows are visible that should not be: sequence={} retention={} query={} seen={}",
                stream.id, retention.spec, query, fmt::join(seen_, ","));
}

void Engine::CheckView(const Stream& stream) {
  if (stream.rows() == 0 || stream.spoilt) return;
  // The one in use may begin behind the last row: that one was seen by the table before.
  if (board(stream.slot).v[stream.adopted & 1].from_row >= stream.rows()) return;
  for (size_t l = 0; l < stream.lanes.size(); ++l) {
    for (size_t i = 0; i < stream.lanes[l].layers.size(); ++i) {
      if (!findings_.any()) CheckLayer(stream, l, i);
    }
  }
}

void Engine::AddNamed(const Stream& stream, std::vector<NamedGroup>* groups) {
  const shm::SeqBoard& seq = board(stream.slot);
  const shm::VersionDesc& table = seq.v[stream.adopted & 1];
  const auto* dir = reinterpret_cast<const shm::RecentRef*>(d_.get() + seq.dir_off);
  for (size_t l = 0; l < stream.lanes.size(); ++l) {
    const shm::LaneSpan& span = SpansOf(d_.get(), table)[l];
    const Stream::Lane& lane = stream.lanes[l];
    for (uint64_t block = span.recent_first / kSlots; block * kSlots < seq.granted.load();
         ++block) {
      const shm::RecentRef& ref = dir[l * seq.dir_cap + block % seq.dir_cap];
      if (At(ref.extent, ref.generation, ref.group_off, lane.recent.bytes, true) == nullptr) return;
      groups->push_back({given_[ref.extent].id, ref.group_off, lane.recent.bytes, true});
    }
    const auto* runs = reinterpret_cast<const shm::RunEntry*>(d_.get() + span.runs_off);
    for (uint32_t r = 0; r < span.runs; ++r) {
      const uint64_t bytes = runs[r].encoding != 0           ? lane.records->geometry.bytes
                             : runs[r].group_slots == kSlots ? lane.block.bytes
                                                             : lane.small.bytes;
      if (At(runs[r].extent, runs[r].generation, runs[r].group_off, bytes, false) == nullptr)
        return;
      groups->push_back({given_[runs[r].extent].id, runs[r].group_off, bytes, false});
    }
  }
}

}  // namespace kvasir::sim
