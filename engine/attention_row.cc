// AttentionOps for a step of one query: threads share the rows that it sees.
#include <algorithm>
#include <numeric>

#include "engine/attention_ops.h"
#include "kernels/encoding/coded_values.h"
#include "kernels/row_tiles.h"

namespace kvasir::engine {

void AttentionOps::AttendRowOp(ggml_tensor* out, int ith, int nth, void* context) {
  const auto& at = *static_cast<LayerContext*>(context);
  at.ops->AttendRow(at.ops->plan_.layer(at.layer), static_cast<const float*>(out->src[0]->data),
                    static_cast<uint64_t>(ith), static_cast<uint64_t>(nth));
}

void AttentionOps::MergeOp(ggml_tensor* out, int ith, int /*nth*/, void* context) {
  if (ith != 0) return;
  AttentionOps& ops = *static_cast<LayerContext*>(context)->ops;
  kernels::AttentionState& whole = ops.workspaces_[0].state;
  for (size_t w = 1; w < ops.workspaces_.size(); ++w) {
    kernels::MergeStates(whole, ops.workspaces_[w].state, ops.shape_.v_dim);
  }
  kernels::FinishState(whole, ops.shape_.v_dim, static_cast<float*>(out->data));
}

// The query in every rotation that the layer's runs take.
void AttentionOps::RotateRow(const LayerPlan& layer, const float* q, Workspace& work) const {
  for (size_t set = 0; set < layer.rotations.size(); ++set) {
    RotateQuery(layer.rotations[set], 0, {q, row_floats()}, work.query.data() + set * row_floats());
  }
}

// Fills work.slices with the ith of nth equal parts of the rows that the step's only query sees.
void AttentionOps::ShareRows(const LayerPlan& layer, uint64_t ith, uint64_t nth,
                             Workspace& work) const {
  uint64_t total = 0;
  for (const PlannedRun& planned : layer.runs) {
    const SlotRange seen = layer.Visible(planned, plan_.row());
    total += seen.last - seen.first;
  }
  const uint64_t begin = total * ith / nth;
  const uint64_t end = total * (ith + 1) / nth;
  work.slices.clear();
  uint64_t at = 0;
  for (const PlannedRun& planned : layer.runs) {
    const SlotRange seen = layer.Visible(planned, plan_.row());
    const uint64_t from = std::max(begin, at);
    const uint64_t to = std::min(end, at + (seen.last - seen.first));
    if (from < to) {
      const auto first = static_cast<uint32_t>(seen.first + (from - at));
      work.slices.push_back(
          {.planned = &planned,
           .slots = {.first = first, .last = first + static_cast<uint32_t>(to - from)}});
    }
    at += seen.last - seen.first;
  }
}

// Calls use(run, planned, first slot) for the rows of work.slices: whole rows in place, or tiles of
// them that are valid during the call.
template <typename Use>
void AttentionOps::ForSlices(Workspace& work, const Use& use) const {
  for (const auto& [planned, slots] : work.slices) {
    if (!planned->turned) {
      kernels::AttentionRun run = planned->run;
      run.k += size_t{slots.first} * run.k_stride;
      run.v += size_t{slots.first} * run.v_stride;
      run.rows = slots.last - slots.first;
      use(run, *planned, slots.first);
      continue;
    }
    for (uint32_t first = slots.first; first < slots.last; first += kernels::kTileRows) {
      const uint32_t last = std::min(first + static_cast<uint32_t>(kernels::kTileRows), slots.last);
      use(RotatedRun(*planned, {first, last}, 0, geometry_.kv_heads, work), *planned, first);
    }
  }
}

void AttentionOps::AttendRow(const LayerPlan& layer, const float* q, uint64_t ith, uint64_t nth) {
  Workspace& work = workspaces_[ith];
  RotateRow(layer, q, work);
  if (float* into = layer.view->queries.Of(plan_.row()); ith == 0 && into != nullptr) {
    std::copy_n(work.query.data(), row_floats(), into);
  }
  ShareRows(layer, ith, nth, work);
  work.state.Reset(geometry_.heads, shape_.v_dim);
  work.runs.clear();
  work.coded.clear();
  const bool at_once = !layer.view->unrotated;
  ForSlices(work, [&](const kernels::AttentionRun& run, const PlannedRun& planned, uint32_t) {
    if (planned.coded) {
      work.coded.push_back(run);
    } else if (at_once) {
      work.runs.push_back(run);
    } else {
      kernels::AttendRuns(row_shape_, work.query.data(), {&run, 1}, work.state);
    }
  });
  if (at_once) kernels::AttendRuns(row_shape_, work.query.data(), work.runs, work.state);
  if (!work.coded.empty()) {
    kernels::AttendCodedRuns({row_shape_, layer.value_code}, work.query.data(), work.coded,
                             work.state);
  }
  if (!layer.records.empty()) AttendRowRecords(layer, ith, nth, work);
}

// This thread's records: neighbours, since they mostly lie one behind the other.
void AttentionOps::AttendRowRecords(const LayerPlan& layer, uint64_t ith, uint64_t nth,
                                    Workspace& work) const {
  const uint64_t records = layer.records.size();
  work.records.clear();
  for (uint64_t i = records * ith / nth; i < records * (ith + 1) / nth; ++i) {
    const SlotRange seen = layer.Visible(layer.records[i], plan_.row());
    if (seen.first >= seen.last) continue;
    work.records.push_back(layer.records[i].run);
    work.records.back().first = seen.first;
    work.records.back().last = seen.last;
  }
  kernels::AttendRecords(RecordShapeOf(layer), work.query.data(), work.records, work.state);
}

// Every thread adds to its own share of the rows; MergeOp has left the whole state in workspace 0.
void AttentionOps::AddRowMass(const LayerPlan& layer, const float* q, uint64_t ith, uint64_t nth) {
  Workspace& work = workspaces_[ith];
  const kernels::AttentionState& whole = workspaces_[0].state;
  RotateRow(layer, q, work);
  ShareRows(layer, ith, nth, work);
  if (layer.view->far_position != 0) {
    AddFarRowMass(layer, ith, nth);
    return;
  }
  work.mass_runs.clear();
  const bool at_once = !layer.view->unrotated;
  const float weight = plan_.mass_weights()[0];
  ForSlices(work, [&](const kernels::AttentionRun& run, const PlannedRun& planned, uint32_t first) {
    if (planned.mass == nullptr) return;
    const kernels::MassRun one = {
        .run = run, .mass = planned.mass + first, .head_stride = planned.mass_stride};
    if (at_once) {
      work.mass_runs.push_back(one);
    } else {
      kernels::AddMassRuns(row_shape_, work.query.data(), {&one, 1}, whole, weight);
    }
  });
  if (at_once) {
    kernels::AddMassRuns(row_shape_, work.query.data(), work.mass_runs, whole, weight);
  }
}

// Each query head's own mass of the rows inside the window, of this thread's share; and the mass of
// this thread's far blocks, whole, so that no two threads add to one sum.
void AttentionOps::AddFarRowMass(const LayerPlan& layer, uint64_t ith, uint64_t nth) {
  Workspace& work = workspaces_[ith];
  const kernels::AttentionState& whole = workspaces_[0].state;
  const float weight = plan_.mass_weights()[0];
  kernels::AttentionState& one = work.by_head[0];
  ForSlices(work, [&](const kernels::AttentionRun& run, const PlannedRun& planned, uint32_t first) {
    for (size_t head = 0; planned.mass != nullptr && head < geometry_.heads; ++head) {
      one.max[0] = whole.max[head];
      one.sum[0] = whole.sum[head];
      kernels::MassRun mass = {.run = run,
                               .mass = planned.mass + head * planned.mass_stride + first};
      mass.run.k += head / shape_.heads * head_bytes_;
      kernels::AddMassRuns(head_shape_, work.query.data() + head * geometry_.head_dim, {&mass, 1},
                           one, weight);
    }
  });
  for (const PlannedRun& planned : layer.runs) {
    if (planned.total == nullptr || planned.share % nth != ith) continue;
    std::fill_n(work.block_mass.begin(), planned.run.rows, 0.0F);
    const kernels::MassRun mass = {.run = planned.run, .mass = work.block_mass.data()};
    kernels::AddMassRuns(row_shape_, work.query.data(), {&mass, 1}, whole, weight);
    *planned.total +=
        std::accumulate(work.block_mass.begin(), work.block_mass.begin() + planned.run.rows, 0.0F);
  }
}

}  // namespace kvasir::engine
