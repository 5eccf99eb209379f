#include "engine/attention_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::engine {
namespace {

constexpr uint64_t kNoMaximum = std::numeric_limits<uint64_t>::max();

uint32_t SlotOf(uint64_t row, const PlannedRun& planned) {
  if (row <= planned.first_row) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(row - planned.first_row, planned.run.rows));
}

// Where the mass of recent row `row` is added; null where nobody asks.
float* RecentMass(const LayerView& view, uint64_t row) {
  return view.mass.recent == nullptr ? nullptr : view.mass.recent + (row - view.recent_base);
}

}  // namespace

bool AsksMass(const LayerView& view) {
  return view.mass.kept != nullptr || view.mass.recent != nullptr || view.far_position != 0;
}

SlotRange LayerPlan::Visible(const PlannedRun& planned, uint64_t row) const {
  switch (planned.kind) {
    case PlannedRun::Kind::kKept:
      return {0, planned.run.rows};
    case PlannedRun::Kind::kRecent:
      return {SlotOf(view->WindowFirst(row), planned), SlotOf(row + 1, planned)};
    case PlannedRun::Kind::kFar:
      return {SlotOf(view->recent_first, planned), SlotOf(view->WindowFirst(row), planned)};
    case PlannedRun::Kind::kSticky:
      break;
  }
  const auto end =
      std::lower_bound(planned.rows.begin(), planned.rows.end(), view->WindowFirst(row));
  return {0, static_cast<uint32_t>(end - planned.rows.begin())};
}

SlotRange LayerPlan::Visible(const PlannedRecord& planned, uint64_t row) const {
  if (!planned.windowed) return {planned.run.first, planned.run.last};
  const uint64_t low = view->RecordsFirst(row);
  const uint64_t gone = low > planned.first_row ? low - planned.first_row : 0;
  const auto first = static_cast<uint32_t>(std::min<uint64_t>(gone, planned.run.last));
  return {std::max(first, planned.run.first), planned.run.last};
}

absl::Status AttentionPlan::Prepare(const StepView& step, uint32_t layers) {
  if (step.layers.size() != layers || step.count == 0) {
    return Internal("step has the wrong shape: layers={} expected={} rows={}", step.layers.size(),
                    layers, step.count);
  }
  row_ = step.row;
  count_ = step.count;
  rotations_.clear();
  FindRotation(0, kNoMaximum);
  layers_.resize(layers);
  most_runs_ = 0;
  most_records_ = 0;
  most_rotations_ = 0;
  asks_mass_ = any_unrotated_ = any_far_ = false;
  for (uint32_t i = 0; i < layers; ++i) {
    KVASIR_RETURN_IF_ERROR(PlanLayer(step.layers[i], layers_[i]));
    most_runs_ = std::max(most_runs_, layers_[i].runs.size());
    most_records_ = std::max(most_records_, layers_[i].records.size());
    most_rotations_ = std::max(most_rotations_, layers_[i].rotations.size());
    asks_mass_ |= AsksMass(step.layers[i]);
    any_unrotated_ |= step.layers[i].unrotated;
    any_far_ |= step.layers[i].far_position != 0;
  }
  if (asks_mass_) {
    mass_weights_.resize(count_);
    for (uint32_t t = 0; t < count_; ++t) {
      mass_weights_[t] = static_cast<float>(std::pow(step.mass_decay, count_ - 1 - t));
    }
  }
  return absl::OkStatus();
}

bool AttentionPlan::AsksOf(uint32_t layer) const {
  const LayerView& view = *layers_[layer].view;
  const QueryRowsView& queries = view.queries;
  const bool any_query = queries.data != nullptr && queries.first_row < row_ + count_ &&
                         row_ < queries.first_row + queries.count;
  return AsksMass(view) || any_query;
}

uint32_t AttentionPlan::FindSet(LayerPlan& plan, uint32_t rotation) {
  const auto found = std::find(plan.rotations.begin(), plan.rotations.end(), rotation);
  const auto set = static_cast<uint32_t>(found - plan.rotations.begin());
  if (found == plan.rotations.end()) plan.rotations.push_back(rotation);
  return set;
}

uint32_t AttentionPlan::FindRotation(int64_t offset, uint64_t max) {
  for (size_t i = 0; i < rotations_.size(); ++i) {
    if (rotations_[i].offset == offset && rotations_[i].max == max) return static_cast<uint32_t>(i);
  }
  Rotation rotation{.offset = offset, .max = max, .angles = {}};
  rotation.angles.resize(size_t{count_} * 2 * rope_.pairs());
  const KeptRunView query{.query_offset = offset, .query_max = max};
  for (uint32_t t = 0; t < count_; ++t) {
    float* angles = rotation.angles.data() + size_t{t} * 2 * rope_.pairs();
    rope_.Angles(query.QueryPosition(row_ + t), angles, angles + rope_.pairs());
  }
  rotations_.push_back(std::move(rotation));
  return static_cast<uint32_t>(rotations_.size() - 1);
}

absl::Status AttentionPlan::CheckLayer(const LayerView& view) const {
  const uint64_t recent_end =
      view.recent_base + view.recent.size() * uint64_t{view.slots_per_block};
  const bool sticky_inside = view.sticky.empty() || (view.sticky.front() >= view.recent_base &&
                                                     view.sticky.back() < recent_end);
  if (view.slots_per_block == 0 || view.recent_base > view.recent_first ||
      view.recent_first > row_ || recent_end < row_ + count_ || !sticky_inside) {
    return Internal("view does not cover the step: row={} rows={} recent_base={} recent_end={}",
                    row_, count_, view.recent_base, recent_end);
  }
  uint64_t kept_rows = 0;
  bool placed = true;
  for (const KeptRunView& kept : view.kept) {
    kept_rows += kept.rows;
    placed &= kept.rows == 0 || kept.positions != nullptr;
  }
  const uint64_t recent_rows = row_ + count_ - view.recent_base;
  if ((view.mass.kept != nullptr && view.mass.kept_rows < kept_rows) ||
      (view.mass.recent != nullptr && view.mass.recent_rows < recent_rows)) {
    return Internal("mass arrays are too short: kept_rows={} min={} recent_rows={} min={}",
                    view.mass.kept_rows, kept_rows, view.mass.recent_rows, recent_rows);
  }
  if (view.far_position != 0 &&
      (!view.unrotated || !view.sticky.empty() || view.mass.kept != nullptr ||
       (view.mass.recent != nullptr && !view.mass.by_query_head))) {
    return Internal("far rows need unrotated keys, no sticky rows and mass by query head: row={}",
                    row_);
  }
  if (view.mass.by_query_head && view.far_position == 0) {
    return Internal("mass by query head needs far rows: row={}", row_);
  }
  if (view.unrotated && view.far_position == 0 && !placed) {
    return Internal("unrotated keys need the positions of kept rows");
  }
  return absl::OkStatus();
}

absl::Status AttentionPlan::PlanLayer(const LayerView& view, LayerPlan& plan) {
  KVASIR_RETURN_IF_ERROR(CheckLayer(view));
  plan.view = &view;
  plan.runs.clear();
  plan.rotations.assign(1, kOwnPosition);
  plan.far_set = 0;
  if (view.far_position != 0) {
    // min(row + position, position): the same for every row
    plan.far_set =
        FindSet(plan, FindRotation(-static_cast<int64_t>(view.far_position), view.far_position));
  }
  KVASIR_RETURN_IF_ERROR(PlanKept(view, plan));
  KVASIR_RETURN_IF_ERROR(PlanRecords(view, plan));
  PlanSticky(view, plan);
  PlanRecent(view, plan);
  if (view.far_position != 0) PlanFar(view, plan);
  // A change of the query set ends a tile of rows in the kernel.
  std::stable_sort(
      plan.runs.begin(), plan.runs.end(),
      [](const PlannedRun& a, const PlannedRun& b) { return a.run.query_set < b.run.query_set; });
  return absl::OkStatus();
}

absl::Status AttentionPlan::PlanKept(const LayerView& view, LayerPlan& plan) {
  uint64_t before = 0;
  // All kept rows of a layer lie in one way.
  const uint32_t v_bits = view.kept.empty() ? 0 : view.kept.front().v_bits;
  plan.value_code = {.dims = head_dim_, .bits = v_bits};
  if (v_bits > 0) KVASIR_RETURN_IF_ERROR(kernels::CheckRotatedRow(plan.value_code));
  for (const KeptRunView& kept : view.kept) {
    if (kept.v_bits != v_bits ||
        (v_bits > 0 &&
         (view.unrotated || kept.v_stride != kv_heads_ * RotatedRowBytes(plan.value_code)))) {
      return Internal("kept values have another code: v_bits={} expected={} v_stride={}",
                      kept.v_bits, v_bits, kept.v_stride);
    }
    if (kept.rows == 0) continue;
    const bool far = view.far_position != 0;
    const uint32_t set =
        far ? plan.far_set : FindSet(plan, FindRotation(kept.query_offset, kept.query_max));
    plan.runs.push_back({.run = {.k = kept.k,
                                 .v = kept.v,
                                 .k_stride = kept.k_stride,
                                 .v_stride = kept.v_stride,
                                 .rows = kept.rows,
                                 .query_set = set},
                         .kind = PlannedRun::Kind::kKept,
                         .first_row = 0,
                         .rows = {},
                         .positions = kept.positions,
                         .head_stride = kept.head_stride,
                         .mass = view.mass.kept == nullptr ? nullptr : view.mass.kept + before,
                         .mass_stride = view.mass.kept_rows,
                         .share = plan.runs.size(),
                         .coded = v_bits > 0,
                         .turned = view.unrotated && !far});
    before += kept.rows;
  }
  return absl::OkStatus();
}

static_assert(static_cast<int>(kernels::Codec::kAsWritten) ==
                  static_cast<int>(RecordCodec::kAsWritten) &&
              static_cast<int>(kernels::Codec::kInt8) == static_cast<int>(RecordCodec::kInt8) &&
              static_cast<int>(kernels::Codec::kInt4) == static_cast<int>(RecordCodec::kInt4) &&
              static_cast<int>(kernels::Codec::kTokenMixed) ==
                  static_cast<int>(RecordCodec::kTokenMixed));

absl::Status AttentionPlan::PlanRecords(const LayerView& view, LayerPlan& plan) {
  plan.records.clear();
  if (view.records.empty()) return absl::OkStatus();
  const RecordFormat& format = *view.record_format;
  plan.k_record = {.codec = static_cast<kernels::Codec>(format.k_codec),
                   .plane = kernels::RecordPlane::kKey,
                   .type = type_,
                   .rows = format.rows,
                   .dims = head_dim_,
                   .code_planes = format.k_planes};
  plan.v_record = plan.k_record;
  plan.v_record.plane = kernels::RecordPlane::kValue;
  plan.v_record.codec = static_cast<kernels::Codec>(format.v_codec);
  plan.v_record.code_planes = format.v_planes;
  KVASIR_RETURN_IF_ERROR(kernels::CheckRecordShape(plan.k_record));
  KVASIR_RETURN_IF_ERROR(kernels::CheckRecordShape(plan.v_record));
  if (kernels::RecordBytes(plan.k_record) != format.k_bytes ||
      kernels::RecordBytes(plan.v_record) != format.v_bytes || view.unrotated) {
    return Internal("records have another format: k_bytes={} expected={} v_bytes={} expected={}",
                    format.k_bytes, kernels::RecordBytes(plan.k_record), format.v_bytes,
                    kernels::RecordBytes(plan.v_record));
  }
  for (const RecordView& record : view.records) {
    if (record.rows == 0) continue;
    if (uint64_t{record.first_slot} + record.rows > format.rows) {
      return Internal("record has too few rows: first_slot={} rows={} max={}", record.first_slot,
                      record.rows, format.rows);
    }
    const uint32_t set = FindSet(plan, FindRotation(record.query_offset, record.query_max));
    plan.records.push_back({.run = {.k = record.k,
                                    .v = record.v,
                                    .first = record.first_slot,
                                    .last = record.first_slot + record.rows,
                                    .query_set = set},
                            .windowed = record.windowed,
                            .first_row = record.first_row});
  }
  return absl::OkStatus();
}

void AttentionPlan::PlanRecent(const LayerView& view, LayerPlan& plan) const {
  const uint64_t slots = view.slots_per_block;
  const uint64_t first_block = (view.WindowFirst(row_) - view.recent_base) / slots;
  const uint64_t last_block = (row_ + count_ - 1 - view.recent_base) / slots;
  for (uint64_t b = first_block; b <= last_block; ++b) {
    plan.runs.push_back({.run = {.k = view.recent[b].k,
                                 .v = view.recent[b].v,
                                 .k_stride = view.k_stride,
                                 .v_stride = view.v_stride,
                                 .rows = view.slots_per_block,
                                 .query_set = 0},
                         .kind = PlannedRun::Kind::kRecent,
                         .first_row = view.recent_base + b * slots,
                         .rows = {},
                         .mass = RecentMass(view, view.recent_base + b * slots),
                         .mass_stride = view.mass.recent_rows,
                         .share = b,
                         .turned = view.unrotated});
  }
}

void AttentionPlan::PlanSticky(const LayerView& view, LayerPlan& plan) const {
  const uint64_t below = view.WindowFirst(row_ + count_ - 1);
  size_t i = 0;
  while (i < view.sticky.size() && view.sticky[i] < below) {
    const uint64_t first = view.sticky[i];
    const uint64_t block_end =
        view.recent_base +
        ((first - view.recent_base) / view.slots_per_block + 1) * view.slots_per_block;
    size_t end = i + 1;
    while (end < view.sticky.size() && view.sticky[end] < std::min(below, block_end) &&
           view.sticky[end] == first + (end - i)) {
      ++end;
    }
    plan.runs.push_back({.run = {.k = view.KeyOf(first),
                                 .v = view.ValueOf(first),
                                 .k_stride = view.k_stride,
                                 .v_stride = view.v_stride,
                                 .rows = static_cast<uint32_t>(end - i),
                                 .query_set = 0},
                         .kind = PlannedRun::Kind::kSticky,
                         .first_row = first,
                         .rows = view.sticky.subspan(i, end - i),
                         .mass = RecentMass(view, first),
                         .mass_stride = view.mass.recent_rows,
                         .share = (first - view.recent_base) / view.slots_per_block,
                         .turned = view.unrotated});
    i = end;
  }
}

void AttentionPlan::PlanFar(const LayerView& view, LayerPlan& plan) const {
  const uint64_t slots = view.slots_per_block;
  const uint64_t end = view.WindowFirst(row_ + count_ - 1);
  for (uint64_t b = (view.recent_first - view.recent_base) / slots;
       view.recent_base + b * slots < end; ++b) {
    plan.runs.push_back({.run = {.k = view.recent[b].k,
                                 .v = view.recent[b].v,
                                 .k_stride = view.k_stride,
                                 .v_stride = view.v_stride,
                                 .rows = view.slots_per_block,
                                 .query_set = plan.far_set},
                         .kind = PlannedRun::Kind::kFar,
                         .first_row = view.recent_base + b * slots,
                         .rows = {}});
  }
}

void AttentionPlan::AddBlocks(uint32_t layer, std::span<const KeptRunView> blocks,
                              std::span<float> totals) {
  LayerPlan& plan = layers_[layer];
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].rows == 0) continue;
    plan.runs.push_back({.run = {.k = blocks[i].k,
                                 .v = blocks[i].v,
                                 .k_stride = blocks[i].k_stride,
                                 .v_stride = blocks[i].v_stride,
                                 .rows = blocks[i].rows,
                                 .query_set = plan.far_set},
                         .kind = PlannedRun::Kind::kKept,
                         .rows = {},
                         .share = i,
                         .total = &totals[i]});
  }
  most_runs_ = std::max(most_runs_, plan.runs.size());
}

}  // namespace kvasir::engine
