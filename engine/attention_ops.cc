#include "engine/attention_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/status_macros.h"

namespace kvasir::engine {
namespace {

// Queries that share one pass over the rows in prefill: their rotated heads stay in the first
// cache.
constexpr uint32_t kTileQueries = 32;

uint32_t ElementBytes(kernels::RowType type) { return type == kernels::RowType::kF32 ? 4 : 2; }

kernels::AttentionShape ShapeOf(const AttentionGeometry& g, uint32_t kv_heads) {
  return {.type = g.type,
          .heads = g.heads / g.kv_heads,
          .k_dim = g.head_dim,
          .v_dim = g.head_dim,
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(g.head_dim))),
          .kv_heads = kv_heads};
}

void WriteRow(kernels::RowType type, const float* from, uint32_t count, std::byte* into) {
  if (type == kernels::RowType::kF32) {
    std::memcpy(into, from, size_t{count} * sizeof(float));
  } else {
    ggml_fp32_to_fp16_row(from, reinterpret_cast<ggml_fp16_t*>(into), count);
  }
}

}  // namespace

AttentionOps::AttentionOps(const AttentionGeometry& geometry, const Rope& rope, uint32_t threads)
    : geometry_(geometry),
      shape_(ShapeOf(geometry, 1)),
      row_shape_(ShapeOf(geometry, geometry.kv_heads)),
      pairs_(rope.pairs()),
      head_bytes_(geometry.head_dim * ElementBytes(geometry.type)),
      plan_(rope),
      contexts_(geometry.layers),
      workspaces_(threads) {
  for (uint32_t i = 0; i < geometry.layers; ++i) contexts_[i] = {.ops = this, .layer = i};
}

absl::Status AttentionOps::Prepare(const StepView& step) {
  KVASIR_RETURN_IF_ERROR(plan_.Prepare(step, geometry_.layers));
  const size_t group_floats = size_t{shape_.heads} * geometry_.head_dim;
  const size_t row_floats = size_t{geometry_.heads} * geometry_.head_dim;
  const uint32_t tile = std::min(step.count, kTileQueries);
  for (Workspace& work : workspaces_) {
    work.query.resize(plan_.most_rotations() * std::max(tile * group_floats, row_floats));
    work.row.resize(std::max(tile * group_floats, size_t{geometry_.kv_heads} * geometry_.head_dim));
    work.first.resize(tile);
    work.last.resize(tile);
    work.runs.reserve(plan_.most_runs());
    work.state.Reset(std::max(tile * shape_.heads, geometry_.heads), shape_.v_dim);
  }
  return absl::OkStatus();
}

ggml_tensor* AttentionOps::Store(ggml_context* ctx, uint32_t layer, ggml_tensor* k,
                                 ggml_tensor* v) {
  std::array<ggml_tensor*, 2> arguments = {k, v};
  return ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, arguments.data(), 2, StoreOp,
                        GGML_N_TASKS_MAX, &contexts_[layer]);
}

ggml_tensor* AttentionOps::Attend(ggml_context* ctx, uint32_t layer, ggml_tensor* q,
                                  ggml_tensor* stored) {
  std::array<ggml_tensor*, 2> arguments = {q, stored};
  if (q->ne[1] > 1) {
    return ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], 1, 1, arguments.data(), 2,
                          AttendTilesOp, GGML_N_TASKS_MAX, &contexts_[layer]);
  }
  // Threads share the rows of one query; an operator has no barrier inside, so a second one merges.
  ggml_tensor* partial = ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, arguments.data(), 2,
                                        AttendRowOp, GGML_N_TASKS_MAX, &contexts_[layer]);
  return ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], 1, 1, 1, &partial, 1, MergeOp, 1,
                        &contexts_[layer]);
}

void AttentionOps::StoreOp(ggml_tensor* out, int ith, int nth, void* context) {
  const auto& at = *static_cast<LayerContext*>(context);
  AttentionOps& ops = *at.ops;
  const LayerPlan& layer = ops.plan_.layer(at.layer);
  const size_t width = size_t{ops.geometry_.kv_heads} * ops.geometry_.head_dim;
  const auto* k = static_cast<const float*>(out->src[0]->data);
  const auto* v = static_cast<const float*>(out->src[1]->data);
  Workspace& work = ops.workspaces_[static_cast<size_t>(ith)];
  for (auto t = static_cast<uint32_t>(ith); t < ops.plan_.count();
       t += static_cast<uint32_t>(nth)) {
    ops.StoreRow(layer, t, k + t * width, v + t * width, work);
  }
}

void AttentionOps::StoreRow(const LayerPlan& layer, uint32_t t, const float* k, const float* v,
                            Workspace& work) const {
  const uint32_t width = geometry_.kv_heads * geometry_.head_dim;
  std::copy_n(k, width, work.row.begin());
  for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
    Rotate(plan_.Cosine(AttentionPlan::kOwnPosition, t), plan_.Sine(AttentionPlan::kOwnPosition, t),
           pairs_, work.row.data() + size_t{h} * geometry_.head_dim);
  }
  const uint64_t row = plan_.row() + t;
  WriteRow(geometry_.type, work.row.data(), width, layer.view->KeyOf(row));
  WriteRow(geometry_.type, v, width, layer.view->ValueOf(row));
}

void AttentionOps::RotateQuery(uint32_t rotation, uint32_t t, std::span<const float> q,
                               float* into) const {
  std::copy(q.begin(), q.end(), into);
  for (size_t at = 0; at < q.size(); at += geometry_.head_dim) {
    Rotate(plan_.Cosine(rotation, t), plan_.Sine(rotation, t), pairs_, into + at);
  }
}

void AttentionOps::AttendRowOp(ggml_tensor* out, int ith, int nth, void* context) {
  const auto& at = *static_cast<LayerContext*>(context);
  at.ops->AttendRow(at.ops->plan_.layer(at.layer), static_cast<const float*>(out->src[0]->data),
                    static_cast<uint64_t>(ith), static_cast<uint64_t>(nth));
}

void AttentionOps::AttendRow(const LayerPlan& layer, const float* q, uint64_t ith, uint64_t nth) {
  Workspace& work = workspaces_[ith];
  ShareRows(layer, ith, nth, work);
  const size_t row_floats = size_t{geometry_.heads} * geometry_.head_dim;
  for (size_t set = 0; set < layer.rotations.size(); ++set) {
    RotateQuery(layer.rotations[set], 0, {q, row_floats}, work.query.data() + set * row_floats);
  }
  work.state.Reset(geometry_.heads, shape_.v_dim);
  kernels::AttendRuns(row_shape_, work.query.data(), work.runs, work.state);
}

// Fills work.runs with the ith of nth equal parts of the rows that the step's only query sees.
void AttentionOps::ShareRows(const LayerPlan& layer, uint64_t ith, uint64_t nth,
                             Workspace& work) const {
  uint64_t total = 0;
  for (const PlannedRun& planned : layer.runs) {
    const SlotRange seen = layer.Visible(planned, plan_.row());
    total += seen.last - seen.first;
  }
  const uint64_t begin = total * ith / nth;
  const uint64_t end = total * (ith + 1) / nth;
  work.runs.clear();
  uint64_t at = 0;
  for (const PlannedRun& planned : layer.runs) {
    const SlotRange seen = layer.Visible(planned, plan_.row());
    const uint64_t from = std::max(begin, at);
    const uint64_t to = std::min(end, at + (seen.last - seen.first));
    if (from < to) {
      kernels::AttentionRun run = planned.run;
      const uint64_t skip = seen.first + (from - at);
      run.k += skip * run.k_stride;
      run.v += skip * run.v_stride;
      run.rows = static_cast<uint32_t>(to - from);
      work.runs.push_back(run);
    }
    at += seen.last - seen.first;
  }
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

void AttentionOps::AttendTilesOp(ggml_tensor* out, int ith, int nth, void* context) {
  const auto& at = *static_cast<LayerContext*>(context);
  AttentionOps& ops = *at.ops;
  const uint32_t count = ops.plan_.count();
  const uint32_t tiles = (count + kTileQueries - 1) / kTileQueries;
  const uint32_t units = tiles * ops.geometry_.kv_heads;
  for (auto unit = static_cast<uint32_t>(ith); unit < units; unit += static_cast<uint32_t>(nth)) {
    const uint32_t begin = unit / ops.geometry_.kv_heads * kTileQueries;
    ops.AttendTile(ops.plan_.layer(at.layer), static_cast<const float*>(out->src[0]->data),
                   unit % ops.geometry_.kv_heads, begin, std::min(kTileQueries, count - begin),
                   static_cast<float*>(out->data), ops.workspaces_[static_cast<size_t>(ith)]);
  }
}

void AttentionOps::AttendTile(const LayerPlan& layer, const float* q, uint32_t kv_head,
                              uint32_t begin, uint32_t count, float* out, Workspace& work) const {
  const size_t group_floats = size_t{shape_.heads} * geometry_.head_dim;
  const size_t row_floats = size_t{geometry_.heads} * geometry_.head_dim;
  const size_t column = kv_head * group_floats;
  const size_t set_floats = count * group_floats;
  for (size_t set = 0; set < layer.rotations.size(); ++set) {
    for (uint32_t t = 0; t < count; ++t) {
      RotateQuery(layer.rotations[set], begin + t,
                  {q + (begin + t) * row_floats + column, group_floats},
                  work.query.data() + set * set_floats + t * group_floats);
    }
  }
  kernels::AttentionState& state = work.state;
  state.Reset(count * shape_.heads, shape_.v_dim);
  for (const PlannedRun& planned : layer.runs) {
    bool any = false;
    for (uint32_t t = 0; t < count; ++t) {
      const SlotRange seen = layer.Visible(planned, plan_.row() + begin + t);
      work.first[t] = seen.first;
      work.last[t] = std::max(seen.first, seen.last);
      any |= seen.first < seen.last;
    }
    if (!any) continue;
    kernels::AttentionRun run = planned.run;
    run.k += size_t{kv_head} * head_bytes_;
    run.v += size_t{kv_head} * head_bytes_;
    const float* set = work.query.data() + planned.run.query_set * set_floats;
    run.query_set = 0;
    kernels::AttendTile(shape_, set, count, run, std::span(work.first).first(count),
                        std::span(work.last).first(count), state);
  }
  kernels::FinishState(state, shape_.v_dim, work.row.data());
  for (uint32_t t = 0; t < count; ++t) {
    std::copy_n(work.row.begin() + static_cast<ptrdiff_t>(t * group_floats), group_floats,
                out + (begin + t) * row_floats + column);
  }
}

}  // namespace kvasir::engine
