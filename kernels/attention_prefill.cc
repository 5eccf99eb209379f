// AttendTile: many queries over one run, as two matrix products per 64 rows.
//
// The rows of a tile are converted once to float: keys transposed, so that a vector holds one
// dimension of many rows, values as they are. Then, for a few queries at a time, scores = queries x
// keys, softmax, and accumulators += weights x values, both through the same register-blocked
// product.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/attention.h"
#include "kernels/row_tiles.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_prefill.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these two are compiled for.
#include "kernels/key_panel-inl.h"
#include "kernels/row_load-inl.h"
#include "kernels/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

struct Panel {
  explicit Panel(const AttentionShape& wanted)
      : shape(wanted), v_padded((shape.v_dim + kBlockFloats - 1) / kBlockFloats * kBlockFloats) {
    keys = Scratch(kTileRows * (shape.k_dim + v_padded) + kBlockQueries * (kTileRows + v_padded));
    values = keys + kTileRows * shape.k_dim;
    weights = values + kTileRows * v_padded;
    sums = weights + kBlockQueries * kTileRows;
  }
  const AttentionShape& shape;
  size_t v_padded;
  size_t rows = 0;
  float* keys;     // [k_dim][kTileRows]; columns behind `rows` are zero
  float* values;   // [kTileRows][v_padded]; columns behind v_dim are zero
  float* weights;  // [kBlockQueries][kTileRows]
  float* sums;     // [kBlockQueries][v_padded]
};

// Converts `panel.rows` rows of the run from `begin` on.
template <class T>
void Pack(const AttentionRun& run, size_t begin, Panel& panel) {
  const AttentionShape& shape = panel.shape;
  for (size_t row = 0; row < panel.rows; ++row) {
    float* value = panel.values + row * panel.v_padded;
    PackRow<T>(run.v + (begin + row) * run.v_stride, shape.type, shape.v_dim, value);
    std::fill(value + shape.v_dim, value + panel.v_padded, 0.0F);
  }
  const std::byte* rows[kTileRows];
  for (size_t row = 0; row < panel.rows; ++row) {
    rows[row] = run.k + (begin + row) * run.k_stride;
  }
  PackKeys<T>(rows, panel.rows, shape.type, shape.k_dim, panel.keys);
}

HWY_INLINE void AddSums(const float* sums, float keep, size_t dims, float* acc) {
  const FloatTag d;
  const FloatVec factor = hn::Set(d, keep);
  size_t dim = 0;
  for (; dim + kLanes <= dims; dim += kLanes) {
    const FloatVec old = hn::LoadU(d, acc + dim);
    hn::StoreU(hn::MulAdd(old, factor, hn::Load(d, sums + dim)), d, acc + dim);
  }
  for (; dim < dims; ++dim) {
    acc[dim] = acc[dim] * keep + sums[dim];
  }
}

// Rows [first, last) of the tile, for each query of a block.
struct Range {
  size_t first, last;
};

// Adds the packed rows to kQueries consecutive query heads from `index` on.
template <size_t kQueries>
void AddBlock(const Panel& panel, const float* q, const Range* ranges, size_t index,
              AttentionState& state) {
  const size_t k_dim = panel.shape.k_dim;
  const size_t v_dim = panel.shape.v_dim;
  size_t first = kTileRows;
  size_t last = 0;
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    if (ranges[i].first < ranges[i].last) {
      first = std::min(first, ranges[i].first);
      last = std::max(last, ranges[i].last);
    }
  }
  if (first >= last) {
    return;
  }
  for (size_t row = first / kBlockFloats * kBlockFloats; row < last; row += kBlockFloats) {
    Multiply<kQueries>(q + index * k_dim, k_dim, panel.keys + row, kTileRows, k_dim,
                       panel.weights + row, kTileRows);
  }
  float keep[kQueries];
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    const bool empty = ranges[i].first >= ranges[i].last;
    keep[i] = Softmax(panel.weights + i * kTileRows, kTileRows, empty ? kTileRows : ranges[i].first,
                      empty ? kTileRows : ranges[i].last, panel.shape.scale, state.max[index + i],
                      state.sum[index + i]);
  }
  for (size_t dim = 0; dim < panel.v_padded; dim += kBlockFloats) {
    Multiply<kQueries>(panel.weights + first, kTileRows,
                       panel.values + first * panel.v_padded + dim, panel.v_padded, last - first,
                       panel.sums + dim, panel.v_padded);
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    AddSums(panel.sums + i * panel.v_padded, keep[i], v_dim,
            state.acc.data() + (index + i) * v_dim);
  }
}

template <class T>
void AttendTyped(const AttentionShape& shape, const float* q, size_t queries,
                 const AttentionRun& run, std::span<const uint32_t> first,
                 std::span<const uint32_t> last, AttentionState& state) {
  Panel panel(shape);
  size_t lowest = run.rows;
  size_t highest = 0;
  for (size_t query = 0; query < queries; ++query) {
    if (first[query] < last[query]) {
      lowest = std::min<size_t>(lowest, first[query]);
      highest = std::max<size_t>(highest, std::min(last[query], run.rows));
    }
  }
  const size_t total = queries * shape.heads;
  for (size_t begin = lowest; begin < highest; begin += panel.rows) {
    panel.rows = std::min(kTileRows, highest - begin);
    Pack<T>(run, begin, panel);
    const auto range_of = [&](size_t index) HWY_ATTR {
      const size_t query = index / shape.heads;
      const size_t from = std::max<size_t>(first[query], begin) - begin;
      const size_t to = std::max<size_t>(last[query], begin) - begin;
      return Range{std::min(from, panel.rows), std::min(to, panel.rows)};
    };
    size_t index = 0;
    Range ranges[kBlockQueries];
    for (; index + kBlockQueries <= total; index += kBlockQueries) {
      for (size_t i = 0; i < kBlockQueries; ++i) {
        ranges[i] = range_of(index + i);
      }
      AddBlock<kBlockQueries>(panel, q, ranges, index, state);
    }
    for (; index < total; ++index) {
      ranges[0] = range_of(index);
      AddBlock<1>(panel, q, ranges, index, state);
    }
  }
}
#endif  // KVASIR_VECTOR_TARGET

void AttendTileTarget(const AttentionShape& shape, const float* q, uint32_t queries,
                      const AttentionRun& run, std::span<const uint32_t> first,
                      std::span<const uint32_t> last, AttentionState& state) {
#if KVASIR_VECTOR_TARGET
  switch (shape.type) {
    case RowType::kF16:
      return AttendTyped<hwy::float16_t>(shape, q, queries, run, first, last, state);
    case RowType::kBF16:
      return AttendTyped<hwy::bfloat16_t>(shape, q, queries, run, first, last, state);
    case RowType::kF32:
      return AttendTyped<float>(shape, q, queries, run, first, last, state);
    case RowType::kE4M3:
      break;
  }
#endif
  scalar::AttendTile(shape, q, queries, run, first, last, state);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(AttendTileTarget);

void AttendTile(const AttentionShape& shape, const float* q, uint32_t queries,
                const AttentionRun& run, std::span<const uint32_t> first,
                std::span<const uint32_t> last, AttentionState& state) {
  KVASIR_CHECK(shape.kv_heads == 1, "a tile of {} kv heads", shape.kv_heads);
  KVASIR_CHECK(first.size() >= queries && last.size() >= queries,
               "{} queries with {} and {} range ends", queries, first.size(), last.size());
  KVASIR_CHECK(state.max.size() == size_t{queries} * shape.heads &&
                   state.acc.size() == state.max.size() * shape.v_dim,
               "a state of {} query heads for {} queries", state.max.size(), queries);
  HWY_DYNAMIC_DISPATCH(AttendTileTarget)(shape, q, queries, run, first, last, state);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
