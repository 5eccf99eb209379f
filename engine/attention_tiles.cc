// AttentionOps for a step of many queries: threads share tiles of queries of one kv head, and the
// runs for the mass.
#include <algorithm>
#include <numeric>

#include "engine/attention_ops.h"
#include "kernels/encoding/coded_values.h"
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
  if (!planned.turned) {
    kernels::AttentionRun run = planned.run;
    run.k += size_t{kv_head} * head_bytes_;
    run.v += kv_head * (planned.coded ? kernels::RotatedRowBytes(layer.value_code) : head_bytes_);
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
              const auto first = std::span<const uint32_t>(work.first).first(count);
              const auto last = std::span<const uint32_t>(work.last).first(count);
              if (planned.coded) {
                kernels::AttendCodedTile({shape_, layer.value_code}, set, count, run, first, last,
                                         state);
              } else {
                kernels::AttendTile(shape_, set, count, run, first, last, state);
              }
            });
  }
  if (!layer.records.empty()) AttendTileRecords(layer, kv_head, begin, count, work);
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

void AttentionOps::AttendTileRecords(const LayerPlan& layer, uint32_t kv_head, uint32_t begin,
                                     uint32_t count, Workspace& work) const {
  const kernels::RecordAttention shape = RecordShapeOf(layer);
  for (const PlannedRecord& planned : layer.records) {
    bool any = false;
    for (uint32_t t = 0; t < count; ++t) {
      const SlotRange seen = layer.Visible(planned, plan_.row() + begin + t);
      work.first[t] = seen.first;
      work.last[t] = std::max(seen.first, seen.last);
      any |= seen.first < seen.last;
    }
    if (!any) continue;
    kernels::RecordRun run = planned.run;
    run.k += kv_head * kernels::RecordBytes(shape.k);
    run.v += kv_head * kernels::RecordBytes(shape.v);
    kernels::AttendRecordTile(shape, work.query.data() + run.query_set * count * group_floats(),
                              count, run, std::span(work.first).first(count),
                              std::span(work.last).first(count), work.state);
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
    if (layer.view->mass.by_query_head) SplitHeads(count, work);
    for (const PlannedRun& planned : layer.runs) {
      if ((planned.mass == nullptr && planned.total == nullptr) || planned.share % nth != ith) {
        continue;
      }
      AddRunMass(layer, planned, kv_head, begin, count, work);
    }
  }
}

// The tile's queries and softmaxes by query head: work.row [head][t][dim], work.by_head.
void AttentionOps::SplitHeads(uint32_t count, Workspace& work) const {
  const size_t dim = geometry_.head_dim;
  for (size_t head = 0; head < shape_.heads; ++head) {
    work.by_head[head].max.resize(count);
    work.by_head[head].sum.resize(count);
    for (size_t t = 0; t < count; ++t) {
      const size_t query = t * shape_.heads + head;
      std::copy_n(work.query.data() + query * dim, dim, work.row.data() + (head * count + t) * dim);
      work.by_head[head].max[t] = work.softmax.max[query];
      work.by_head[head].sum[t] = work.softmax.sum[query];
    }
  }
}

// Adds the mass of one run's rows that the tile's queries see: row by row for the kv head, or for
// each of its query heads, or one sum for all rows of a far block.
void AttentionOps::AddRunMass(const LayerPlan& layer, const PlannedRun& planned, uint32_t kv_head,
                              uint32_t begin, uint32_t count, Workspace& work) const {
  const std::span<const float> weights = plan_.mass_weights().subspan(begin, count);
  const float* set = work.query.data() + planned.run.query_set * count * group_floats();
  const auto add = [&](const kernels::AttentionShape& shape, const float* q,
                       const kernels::AttentionRun& run, float* mass,
                       const kernels::AttentionState& softmax) {
    kernels::AddMassTile(shape, q, count, {.run = run, .mass = mass},
                         std::span(work.first).first(count), std::span(work.last).first(count),
                         softmax, weights);
  };
  ForTile(layer, planned, kv_head, begin, count, work,
          [&](const kernels::AttentionRun& run, uint32_t first) {
            if (planned.total != nullptr) {
              std::fill_n(work.block_mass.begin(), run.rows, 0.0F);
              add(shape_, set, run, work.block_mass.data(), work.softmax);
              *planned.total += std::accumulate(work.block_mass.begin(),
                                                work.block_mass.begin() + run.rows, 0.0F);
              return;
            }
            if (!layer.view->mass.by_query_head) {
              float* mass = planned.mass + kv_head * planned.mass_stride + first;
              add(shape_, set, run, mass, work.softmax);
              return;
            }
            for (size_t i = 0; i < shape_.heads; ++i) {
              const size_t head = kv_head * shape_.heads + i;
              add(head_shape_, work.row.data() + i * count * geometry_.head_dim, run,
                  planned.mass + head * planned.mass_stride + first, work.by_head[i]);
            }
          });
}

}  // namespace kvasir::engine
