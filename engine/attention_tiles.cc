// AttentionOps for a step of many queries: threads share tiles of queries of one kv head, and the
// runs for the mass.
#include <algorithm>

#include "engine/attention_ops.h"
#include "kernels/row_tiles.h"

namespace kvasir::engine {

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

// Queries [begin, begin + count) of the group, in every rotation: work.query [set][t][head][dim].
void AttentionOps::RotateTile(const LayerPlan& layer, const float* q, uint32_t kv_head,
                              uint32_t begin, uint32_t count, Workspace& work) const {
  float* into = work.query.data();
  for (const uint32_t rotation : layer.rotations) {
    for (uint32_t t = begin; t < begin + count; ++t, into += group_floats()) {
      RotateQuery(rotation, t, {q + t * row_floats() + kv_head * group_floats(), group_floats()},
                  into);
    }
  }
}

// Writes the query rows that are asked for; set 0 is the rows' own rotation.
void AttentionOps::StoreQueries(const LayerPlan& layer, uint32_t kv_head, uint32_t begin,
                                uint32_t count, const Workspace& work) const {
  for (uint32_t t = 0; t < count; ++t) {
    float* into = layer.view->queries.Of(plan_.row() + begin + t);
    if (into == nullptr) continue;
    std::copy_n(work.query.data() + t * group_floats(), group_floats(),
                into + kv_head * group_floats());
  }
}

// Calls use(run, first slot) for the rows of `planned` that any of the queries sees, after setting
// work.first and work.last to what each sees of `run`: the whole run in place, or tiles of rows
// that are valid during the call.
template <typename Use>
void AttentionOps::ForTile(const LayerPlan& layer, const PlannedRun& planned, uint32_t kv_head,
                           uint32_t begin, uint32_t count, Workspace& work, const Use& use) const {
  SlotRange any = {.first = planned.run.rows, .last = 0};
  for (uint32_t t = 0; t < count; ++t) {
    const SlotRange seen = layer.Visible(planned, plan_.row() + begin + t);
    work.first[t] = seen.first;
    work.last[t] = std::max(seen.first, seen.last);
    if (seen.first >= seen.last) continue;
    any.first = std::min(any.first, seen.first);
    any.last = std::max(any.last, seen.last);
  }
  if (any.first >= any.last) return;
  if (!layer.view->unrotated) {
    kernels::AttentionRun run = planned.run;
    run.k += size_t{kv_head} * head_bytes_;
    run.v += size_t{kv_head} * head_bytes_;
    run.query_set = 0;
    use(run, 0U);
    return;
  }
  for (uint32_t first = any.first; first < any.last; first += kernels::kTileRows) {
    const uint32_t last = std::min(first + static_cast<uint32_t>(kernels::kTileRows), any.last);
    for (uint32_t t = 0; t < count; ++t) {
      const SlotRange seen = layer.Visible(planned, plan_.row() + begin + t);
      work.first[t] = std::clamp(seen.first, first, last) - first;
      work.last[t] = std::max(work.first[t], std::clamp(seen.last, first, last) - first);
    }
    kernels::AttentionRun run = RotatedRun(planned, {first, last}, kv_head, 1, work);
    run.query_set = 0;
    use(run, first);
  }
}

void AttentionOps::AttendTile(const LayerPlan& layer, const float* q, uint32_t kv_head,
                              uint32_t begin, uint32_t count, float* out, Workspace& work) {
  RotateTile(layer, q, kv_head, begin, count, work);
  StoreQueries(layer, kv_head, begin, count, work);
  kernels::AttentionState& state = work.state;
  state.Reset(count * shape_.heads, shape_.v_dim);
  for (const PlannedRun& planned : layer.runs) {
    const float* set = work.query.data() + planned.run.query_set * count * group_floats();
    ForTile(layer, planned, kv_head, begin, count, work,
            [&](const kernels::AttentionRun& run, uint32_t) {
              kernels::AttendTile(shape_, set, count, run, std::span(work.first).first(count),
                                  std::span(work.last).first(count), state);
            });
  }
  if (plan_.asks_mass()) {
    const size_t at = (size_t{kv_head} * plan_.count() + begin) * shape_.heads;
    std::copy_n(state.max.begin(), count * shape_.heads, softmax_max_.data() + at);
    std::copy_n(state.sum.begin(), count * shape_.heads, softmax_sum_.data() + at);
  }
  kernels::FinishState(state, shape_.v_dim, work.row.data());
  for (uint32_t t = 0; t < count; ++t) {
    std::copy_n(work.row.data() + t * group_floats(), group_floats(),
                out + (begin + t) * row_floats() + kv_head * group_floats());
  }
}

// Each thread has all queries and its own runs, so no two add to the same row.
void AttentionOps::AddTilesMass(const LayerPlan& layer, const float* q, uint64_t ith,
                                uint64_t nth) {
  Workspace& work = workspaces_[ith];
  const uint32_t units = (plan_.count() + kTileQueries - 1) / kTileQueries * geometry_.kv_heads;
  for (uint32_t unit = 0; unit < units; ++unit) {
    const uint32_t kv_head = unit % geometry_.kv_heads;
    const uint32_t begin = unit / geometry_.kv_heads * kTileQueries;
    const uint32_t count = std::min(kTileQueries, plan_.count() - begin);
    const std::span<const float> weights = plan_.mass_weights().subspan(begin, count);
    if (weights.back() == 0.0F) continue;  // weights rise: decayed to nothing
    RotateTile(layer, q, kv_head, begin, count, work);
    const size_t at = (size_t{kv_head} * plan_.count() + begin) * shape_.heads;
    const size_t queries = size_t{count} * shape_.heads;
    work.softmax.max.assign(softmax_max_.data() + at, softmax_max_.data() + at + queries);
    work.softmax.sum.assign(softmax_sum_.data() + at, softmax_sum_.data() + at + queries);
    for (const PlannedRun& planned : layer.runs) {
      if (planned.mass == nullptr || planned.share % nth != ith) continue;
      const float* set = work.query.data() + planned.run.query_set * count * group_floats();
      ForTile(layer, planned, kv_head, begin, count, work,
              [&](const kernels::AttentionRun& run, uint32_t first) {
                const kernels::MassRun one = {
                    .run = run,
                    .mass = planned.mass + kv_head * planned.mass_stride + first,
                    .head_stride = 0};
                kernels::AddMassTile(shape_, set, count, one, std::span(work.first).first(count),
                                     std::span(work.last).first(count), work.softmax, weights);
              });
    }
  }
}

}  // namespace kvasir::engine
