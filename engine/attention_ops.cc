#include "engine/attention_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/row_convert.h"
#include "kernels/row_tiles.h"

namespace kvasir::engine {
namespace {

kernels::AttentionShape ShapeOf(const AttentionGeometry& g, uint32_t kv_heads, uint32_t heads) {
  return {.type = g.type,
          .heads = heads,
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
      shape_(ShapeOf(geometry, 1, geometry.heads / geometry.kv_heads)),
      row_shape_(ShapeOf(geometry, geometry.kv_heads, geometry.heads / geometry.kv_heads)),
      head_shape_(ShapeOf(geometry, 1, 1)),
      pairs_(rope.pairs()),
      head_bytes_(geometry.head_dim * static_cast<uint32_t>(kernels::ElementBytes(geometry.type))),
      plan_(rope, geometry.type, geometry.head_dim, geometry.kv_heads),
      keys_(rope, geometry.type, geometry.head_dim),
      contexts_(geometry.layers),
      workspaces_(threads) {
  for (uint32_t i = 0; i < geometry.layers; ++i) contexts_[i] = {.ops = this, .layer = i};
}

absl::Status AttentionOps::Prepare(const StepView& step, FarBlocks* far) {
  KVASIR_RETURN_IF_ERROR(plan_.Prepare(step, geometry_.layers));
  if (plan_.any_far() && far == nullptr) {
    return FailedPrecondition("the step needs retrieval and nobody retrieves: row={}", step.row);
  }
  far_ = far;
  failure_ = absl::OkStatus();
  for (const LayerView& view : step.layers) {
    if (view.queries.data != nullptr && view.queries.row_floats != row_floats()) {
      return Internal("query rows have another width: row_floats={} expected={}",
                      view.queries.row_floats, row_floats());
    }
  }
  const uint32_t tile = std::min(step.count, kTileQueries);
  if (plan_.any_unrotated()) keys_.Cover(step.row + step.count);
  if (plan_.asks_mass() && step.count > 1) {
    softmax_max_.resize(size_t{step.count} * geometry_.heads);
    softmax_sum_.resize(size_t{step.count} * geometry_.heads);
  }
  for (Workspace& work : workspaces_) {
    work.query.resize(plan_.most_rotations() * std::max(tile * group_floats(), row_floats()));
    work.row.resize(
        std::max(tile * group_floats(), size_t{geometry_.kv_heads} * geometry_.head_dim));
    work.first.resize(tile);
    work.last.resize(tile);
    work.slices.reserve(plan_.most_runs());
    work.runs.reserve(plan_.most_runs());
    work.coded.reserve(plan_.most_runs());
    work.records.reserve(plan_.most_records());
    work.state.Reset(std::max(tile * shape_.heads, geometry_.heads), shape_.v_dim);
    if (plan_.asks_mass()) {
      work.mass_runs.reserve(plan_.most_runs());
      work.softmax.max.reserve(size_t{tile} * shape_.heads);
      work.softmax.sum.reserve(size_t{tile} * shape_.heads);
    }
    if (plan_.any_far()) {
      work.by_head.resize(geometry_.heads);
      for (kernels::AttentionState& one : work.by_head) {
        one.max.resize(tile);
        one.sum.resize(tile);
      }
    }
    if (plan_.any_unrotated()) {
      work.keys.resize(kernels::kTileRows * geometry_.kv_heads * head_bytes_);
      work.key_scratch.resize(keys_.ScratchFloats(geometry_.kv_heads));
    }
  }
  return absl::OkStatus();
}

ggml_tensor* AttentionOps::Store(ggml_context* ctx, uint32_t layer, ggml_tensor* k,
                                 ggml_tensor* v) {
  std::array<ggml_tensor*, 2> arguments = {k, v};
  return ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, arguments.data(), v == nullptr ? 1 : 2,
                        StoreOp, GGML_N_TASKS_MAX, &contexts_[layer]);
}

ggml_tensor* AttentionOps::Retrieve(ggml_context* ctx, uint32_t layer, ggml_tensor* q,
                                    ggml_tensor* stored) {
  // In place, so that attention waits.
  return ggml_custom_inplace(ctx, q, &stored, 1, RetrieveOp, 1, &contexts_[layer]);
}

ggml_tensor* AttentionOps::Attend(ggml_context* ctx, uint32_t layer, ggml_tensor* q,
                                  ggml_tensor* stored, bool mass) {
  std::array<ggml_tensor*, 2> arguments = {q, stored};
  ggml_tensor* attended = nullptr;
  if (q->ne[1] > 1) {
    attended = ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], 1, 1, arguments.data(), 2,
                              AttendTilesOp, GGML_N_TASKS_MAX, &contexts_[layer]);
  } else {
    // Threads share the rows of one query; an operator has no barrier inside, so a second one
    // merges.
    ggml_tensor* partial = ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, arguments.data(), 2,
                                          AttendRowOp, GGML_N_TASKS_MAX, &contexts_[layer]);
    attended = ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], 1, 1, 1, &partial, 1, MergeOp, 1,
                              &contexts_[layer]);
  }
  if (!mass) return attended;
  // Probabilities are known when the softmax is complete. In place, so that what follows waits; q
  // is an argument, so that its memory is not given to others before.
  return ggml_custom_inplace(ctx, attended, &q, 1, AddMassOp, GGML_N_TASKS_MAX, &contexts_[layer]);
}

ggml_tensor* AttentionOps::SumQuery(ggml_context* ctx, uint32_t layer, ggml_tensor* q,
                                    ggml_tensor* stored) {
  std::array<ggml_tensor*, 2> arguments = {q, stored};
  return ggml_custom_4d(ctx, GGML_TYPE_F32, int64_t{geometry_.kv_heads} * geometry_.head_dim, 1, 1,
                        1, arguments.data(), 2, SumQueryOp, 1, &contexts_[layer]);
}

void AttentionOps::AddMassOp(ggml_tensor* out, int ith, int nth, void* context) {
  const auto& at = *static_cast<LayerContext*>(context);
  AttentionOps& ops = *at.ops;
  const LayerPlan& layer = ops.plan_.layer(at.layer);
  if (!AsksMass(*layer.view)) return;
  const auto* q = static_cast<const float*>(out->src[1]->data);
  if (ops.plan_.count() > 1) {
    ops.AddTilesMass(layer, q, static_cast<uint64_t>(ith), static_cast<uint64_t>(nth));
  } else {
    ops.AddRowMass(layer, q, static_cast<uint64_t>(ith), static_cast<uint64_t>(nth));
  }
}

void AttentionOps::RetrieveOp(ggml_tensor* out, int ith, int /*nth*/, void* context) {
  const auto& at = *static_cast<LayerContext*>(context);
  AttentionOps& ops = *at.ops;
  // An operator cannot fail: what follows a failure computes on, and its result is void.
  if (ith != 0 || !ops.failure_.ok() || ops.plan_.layer(at.layer).view->far_position == 0) return;
  ops.failure_ = ops.RetrieveBlocks(at.layer, static_cast<const float*>(out->src[0]->data));
}

// Asks for the blocks by the mean query. The rotation is the same for all, so one turn of the mean
// does for the mean of the turned.
absl::Status AttentionOps::RetrieveBlocks(uint32_t layer, const float* q) {
  const LayerPlan& plan = plan_.layer(layer);
  std::vector<double> sums(row_floats());
  for (uint32_t t = 0; t < plan_.count(); ++t) {
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] += static_cast<double>(q[t * sums.size() + i]);
    }
  }
  std::vector<float> mean(sums.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    mean[i] = static_cast<float>(sums[i] / static_cast<double>(plan_.count()));
  }
  std::vector<float> query(mean.size());
  RotateQuery(plan.rotations[plan.far_set], 0, mean, query.data());
  KVASIR_ASSIGN_OR_RETURN(const std::span<const KeptRunView> blocks, far_->Retrieve(layer, query));
  plan_.AddBlocks(layer, blocks, far_->totals(layer));
  size_t rows = 0;
  for (const KeptRunView& block : blocks) rows = std::max<size_t>(rows, block.rows);
  for (Workspace& work : workspaces_) {
    work.slices.reserve(plan_.most_runs());
    work.block_mass.resize(std::max(work.block_mass.size(), rows));
  }
  return absl::OkStatus();
}

void AttentionOps::SumQueryOp(ggml_tensor* out, int ith, int /*nth*/, void* context) {
  if (ith != 0) return;
  const AttentionOps& ops = *static_cast<LayerContext*>(context)->ops;
  Workspace& work = static_cast<LayerContext*>(context)->ops->workspaces_[0];
  const size_t dim = ops.geometry_.head_dim;
  ops.RotateQuery(AttentionPlan::kOwnPosition, ops.plan_.count() - 1,
                  {static_cast<const float*>(out->src[0]->data), ops.row_floats()},
                  work.query.data());
  auto* sums = static_cast<float*>(out->data);
  std::fill_n(sums, ops.geometry_.kv_heads * dim, 0.0F);
  for (size_t head = 0; head < ops.geometry_.heads; ++head) {
    float* sum = sums + head / ops.shape_.heads * dim;
    for (size_t i = 0; i < dim; ++i) sum[i] += work.query[head * dim + i];
  }
}

void AttentionOps::StoreOp(ggml_tensor* out, int ith, int nth, void* context) {
  const auto& at = *static_cast<LayerContext*>(context);
  AttentionOps& ops = *at.ops;
  const LayerPlan& layer = ops.plan_.layer(at.layer);
  const size_t width = size_t{ops.geometry_.kv_heads} * ops.geometry_.head_dim;
  const auto* k = static_cast<const float*>(out->src[0]->data);
  const auto* v = out->src[1] == nullptr ? nullptr : static_cast<const float*>(out->src[1]->data);
  Workspace& work = ops.workspaces_[static_cast<size_t>(ith)];
  for (auto t = static_cast<uint32_t>(ith); t < ops.plan_.count();
       t += static_cast<uint32_t>(nth)) {
    ops.StoreRow(layer, t, k + t * width, v == nullptr ? nullptr : v + t * width, work);
  }
}

void AttentionOps::StoreRow(const LayerPlan& layer, uint32_t t, const float* k, const float* v,
                            Workspace& work) const {
  const uint32_t width = geometry_.kv_heads * geometry_.head_dim;
  std::copy_n(k, width, work.row.begin());
  for (uint32_t h = 0; !layer.view->unrotated && h < geometry_.kv_heads; ++h) {
    Rotate(plan_.Cosine(AttentionPlan::kOwnPosition, t), plan_.Sine(AttentionPlan::kOwnPosition, t),
           pairs_, work.row.data() + size_t{h} * geometry_.head_dim);
  }
  const uint64_t row = plan_.row() + t;
  WriteRow(geometry_.type, work.row.data(), width, layer.view->KeyOf(row));
  if (v != nullptr) WriteRow(geometry_.type, v, width, layer.view->ValueOf(row));
}

void AttentionOps::RotateQuery(uint32_t rotation, uint32_t t, std::span<const float> q,
                               float* into) const {
  std::copy(q.begin(), q.end(), into);
  for (size_t at = 0; at < q.size(); at += geometry_.head_dim) {
    Rotate(plan_.Cosine(rotation, t), plan_.Sine(rotation, t), pairs_, into + at);
  }
}

kernels::AttentionRun AttentionOps::RotatedRun(const PlannedRun& planned, SlotRange slots,
                                               uint32_t head, uint32_t heads,
                                               Workspace& work) const {
  keys_.Rotate(planned, slots, head, heads, work.key_scratch, work.keys.data());
  return {
      .k = work.keys.data(),
      .v = planned.run.v + size_t{slots.first} * planned.run.v_stride + size_t{head} * head_bytes_,
      .k_stride = heads * head_bytes_,
      .v_stride = planned.run.v_stride,
      .rows = slots.last - slots.first,
      .query_set = planned.run.query_set};
}

}  // namespace kvasir::engine
