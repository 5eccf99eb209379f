// AddMassTile and WindowMass: many queries over one kv head's keys, as a matrix product per 64
// rows.
//
// The keys of a tile are converted and transposed once; then scores of a few queries at a time,
// and their shares in the finished softmax. WindowMass goes over the keys twice: maxima and sums
// first, shares after, so that working memory does not grow with the number of keys.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/check.h"
#include "kernels/row_tiles.h"
#include "kernels/scores.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mass_tile.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/key_panel-inl.h"
#include "kernels/row_load-inl.h"
#include "kernels/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

struct ScorePanel {
  // `extra` floats more, for the caller.
  ScorePanel(RowType row_type, size_t k_dim, float q_scale, size_t extra = 0)
      : type(row_type), dim(k_dim), scale(q_scale) {
    keys = Scratch(kTileRows * (dim + kBlockQueries + 1) + extra);
    scores = keys + kTileRows * dim;
    mass = scores + kTileRows * kBlockQueries;
    more = mass + kTileRows;
  }
  RowType type;
  size_t dim;
  float scale;
  float* keys;    // [dim][kTileRows]
  float* scores;  // [kBlockQueries][kTileRows]
  float* mass;    // [kTileRows]
  float* more;
};

// What one query sees of a tile, and its softmax.
struct QueryView {
  size_t first = 0, last = 0;  // rows of the tile
  float max = 0;
  float factor = 0;  // weight / sum
};

// Scores of kQueries queries at q with the rows that any of them sees. False: none sees any.
template <size_t kQueries>
HWY_INLINE bool ScoreBlock(const ScorePanel& panel, const float* q, const QueryView* views,
                           size_t& first, size_t& last) {
  first = kTileRows;
  last = 0;
  for (size_t i = 0; i < kQueries; ++i) {
    if (views[i].first < views[i].last) {
      first = std::min(first, views[i].first);
      last = std::max(last, views[i].last);
    }
  }
  for (size_t row = first / kBlockFloats * kBlockFloats; row < last; row += kBlockFloats) {
    Multiply<kQueries>(q, panel.dim, panel.keys + row, kTileRows, panel.dim, panel.scores + row,
                       kTileRows);
  }
  first = first / kLanes * kLanes;
  return first < last;
}

// Lanes of rows from `row` on that the query sees.
HWY_INLINE hn::Mask<FloatTag> Seen(const QueryView& view, size_t row) {
  const FloatTag d;
  const FloatVec index = hn::Iota(d, static_cast<float>(row));
  return hn::And(hn::Ge(index, hn::Set(d, static_cast<float>(view.first))),
                 hn::Lt(index, hn::Set(d, static_cast<float>(view.last))));
}

HWY_INLINE FloatVec Score(const ScorePanel& panel, size_t query, size_t row) {
  const FloatTag d;
  const FloatVec score = hn::Load(d, panel.scores + query * kTileRows + row);
  return Limited(hn::Mul(score, hn::Set(d, panel.scale)));
}

// panel.mass += the shares of the block's queries.
template <size_t kQueries>
void AddShares(const ScorePanel& panel, const float* q, const QueryView* views) {
  const FloatTag d;
  size_t first = 0;
  size_t last = 0;
  if (!ScoreBlock<kQueries>(panel, q, views, first, last)) {
    return;
  }
  for (size_t row = first; row < last; row += kLanes) {
    FloatVec mass = hn::Load(d, panel.mass + row);
    for (size_t i = 0; i < kQueries; ++i) {
      const FloatVec share = hn::Mul(ExpOf(hn::Sub(Score(panel, i, row), hn::Set(d, views[i].max))),
                                     hn::Set(d, views[i].factor));
      mass = hn::Add(mass, hn::IfThenElseZero(Seen(views[i], row), share));
    }
    hn::Store(mass, d, panel.mass + row);
  }
}

// Moves max[i] and sum[i] of the block's queries on.
template <size_t kQueries>
void Observe(const ScorePanel& panel, const float* q, const QueryView* views, float* max,
             float* sum) {
  const FloatTag d;
  size_t first = 0;
  size_t last = 0;
  if (!ScoreBlock<kQueries>(panel, q, views, first, last)) {
    return;
  }
  const FloatVec lowest = hn::Set(d, std::numeric_limits<float>::lowest());
  for (size_t i = 0; i < kQueries; ++i) {
    FloatVec top = hn::Set(d, max[i]);
    for (size_t row = first; row < last; row += kLanes) {
      top = hn::Max(top, hn::IfThenElse(Seen(views[i], row), Score(panel, i, row), lowest));
    }
    const float before = max[i];
    max[i] = hn::GetLane(hn::MaxOfLanes(d, top));
    const FloatVec shift = hn::Set(d, max[i]);
    FloatVec total = hn::Zero(d);
    for (size_t row = first; row < last; row += kLanes) {
      const FloatVec weight = ExpOf(hn::Sub(Score(panel, i, row), shift));
      total = hn::Add(total, hn::IfThenElseZero(Seen(views[i], row), weight));
    }
    const float keep = max[i] == before ? 1.0F : std::exp(before - max[i]);
    sum[i] = sum[i] * keep + hn::GetLane(hn::SumOfLanes(d, total));
  }
}

template <size_t kQueries>
using Size = std::integral_constant<size_t, kQueries>;

// Calls use(size, index) for blocks of queries that together are [begin, end).
template <class Use>
HWY_INLINE void ForBlocks(size_t begin, size_t end, const Use& use) {
  for (; begin + kBlockQueries <= end; begin += kBlockQueries) {
    use(Size<kBlockQueries>(), begin);
  }
  if (begin + 4 <= end) {
    use(Size<4>(), begin);
    begin += 4;
  }
  if (begin + 2 <= end) {
    use(Size<2>(), begin);
    begin += 2;
  }
  if (begin < end) {
    use(Size<1>(), begin);
  }
}

// The queries of one AddMassTile.
struct TileQueries {
  const AttentionShape& shape;
  const float* q;
  size_t queries;
  std::span<const uint32_t> first, last;
  const AttentionState& state;
  std::span<const float> weights;

  // What query head `index` sees of rows [begin, begin + rows).
  QueryView View(size_t index, size_t begin, size_t rows) const {
    const size_t query = index / shape.heads;
    if (weights[query] == 0.0F || state.sum[index] == 0.0F) {
      return {};
    }
    const size_t from = std::max<size_t>(first[query], begin) - begin;
    const size_t to = std::max<size_t>(last[query], begin) - begin;
    return {.first = std::min(from, rows),
            .last = std::min(to, rows),
            .max = state.max[index],
            .factor = weights[query] / state.sum[index]};
  }
};

template <class T>
void AddTileTyped(const TileQueries& it, const MassRun& run) {
  const ScorePanel panel(it.shape.type, it.shape.k_dim, it.shape.scale);
  size_t lowest = run.run.rows;
  size_t highest = 0;
  for (size_t query = 0; query < it.queries; ++query) {
    if (it.weights[query] != 0.0F && it.first[query] < it.last[query]) {
      lowest = std::min<size_t>(lowest, it.first[query]);
      highest = std::max<size_t>(highest, std::min(it.last[query], run.run.rows));
    }
  }
  for (size_t begin = lowest; begin < highest; begin += kTileRows) {
    const size_t rows = std::min(kTileRows, highest - begin);
    const std::byte* keys[kTileRows];
    for (size_t row = 0; row < rows; ++row) {
      keys[row] = run.run.k + (begin + row) * run.run.k_stride;
    }
    PackKeys<T>(keys, rows, panel.type, panel.dim, panel.keys);
    std::fill(panel.mass, panel.mass + kTileRows, 0.0F);
    ForBlocks(0, it.queries * it.shape.heads, [&](auto size, size_t index) HWY_ATTR {
      QueryView views[size];
      for (size_t i = 0; i < size; ++i) {
        views[i] = it.View(index + i, begin, rows);
      }
      AddShares<size>(panel, it.q + index * panel.dim, views);
    });
    for (size_t row = 0; row < rows; ++row) {
      run.mass[begin + row] += panel.mass[row];
    }
  }
}

// Calls use(first row of the tile, rows) with each tile of the runs packed.
template <class T, class Use>
void ForPanels(const ScorePanel& panel, std::span<const KeyRun> runs, const Use& use) {
  KeyTileSource source(runs);
  KeyTile tile;
  size_t begin = 0;
  for (source.Next(tile); tile.rows > 0; source.Next(tile)) {
    PackKeys<T>(tile.k, tile.rows, panel.type, panel.dim, panel.keys);
    use(begin, tile.rows);
    begin += tile.rows;
  }
}

template <class T>
void WindowTyped(const KeyShape& shape, size_t heads, size_t window, float scale, const float* q,
                 std::span<const KeyRun> runs, size_t total, float* out) {
  const size_t queries = heads * window;
  const ScorePanel panel(shape.type, shape.dim, scale, 2 * queries);
  float* max = panel.more;
  float* sum = max + queries;
  std::fill(max, max + queries, std::numeric_limits<float>::lowest());
  std::fill(sum, sum + queries, 0.0F);
  const auto view = [&](size_t index, size_t begin, size_t rows) HWY_ATTR {
    const size_t seen = total + 1 + index % window;  // and `window` less
    const size_t last = std::max(seen, begin + window) - begin - window;
    return QueryView{.first = 0, .last = std::min(last, rows), .max = max[index]};
  };
  ForPanels<T>(panel, runs, [&](size_t begin, size_t rows) HWY_ATTR {
    ForBlocks(0, queries, [&](auto size, size_t index) HWY_ATTR {
      QueryView views[size];
      for (size_t i = 0; i < size; ++i) {
        views[i] = view(index + i, begin, rows);
      }
      Observe<size>(panel, q + index * shape.dim, views, max + index, sum + index);
    });
  });
  ForPanels<T>(panel, runs, [&](size_t begin, size_t rows) HWY_ATTR {
    for (size_t head = 0; head < heads; ++head) {
      std::fill(panel.mass, panel.mass + kTileRows, 0.0F);
      ForBlocks(head * window, (head + 1) * window, [&](auto size, size_t index) HWY_ATTR {
        QueryView views[size];
        for (size_t i = 0; i < size; ++i) {
          views[i] = view(index + i, begin, rows);
          views[i].factor = 1.0F / sum[index + i];
        }
        AddShares<size>(panel, q + index * shape.dim, views);
      });
      std::copy(panel.mass, panel.mass + rows, out + head * total + begin);
    }
  });
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void AddMassTileTarget(const AttentionShape& shape, const float* q, uint32_t queries,
                       const MassRun& run, std::span<const uint32_t> first,
                       std::span<const uint32_t> last, const AttentionState& state,
                       std::span<const float> weights) {
#if KVASIR_VECTOR_TARGET
  const TileQueries it = {shape, q, queries, first, last, state, weights};
  switch (shape.type) {
    case RowType::kF16:
      return AddTileTyped<hwy::float16_t>(it, run);
    case RowType::kBF16:
      return AddTileTyped<hwy::bfloat16_t>(it, run);
    case RowType::kF32:
      return AddTileTyped<float>(it, run);
    case RowType::kE4M3:
      break;
  }
#endif
  scalar::AddMassTile(shape, q, queries, run, first, last, state, weights);
}

void WindowMassTarget(const KeyShape& shape, uint32_t heads, uint32_t window, float scale,
                      const float* q, std::span<const KeyRun> runs, float* out) {
#if KVASIR_VECTOR_TARGET
  size_t total = 0;
  for (const KeyRun& run : runs) {
    total += run.rows;
  }
  switch (shape.type) {
    case RowType::kF16:
      return WindowTyped<hwy::float16_t>(shape, heads, window, scale, q, runs, total, out);
    case RowType::kBF16:
      return WindowTyped<hwy::bfloat16_t>(shape, heads, window, scale, q, runs, total, out);
    case RowType::kF32:
      return WindowTyped<float>(shape, heads, window, scale, q, runs, total, out);
    case RowType::kE4M3:
      break;
  }
#endif
  scalar::WindowMass(shape, heads, window, scale, q, runs, out);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(AddMassTileTarget);
HWY_EXPORT(WindowMassTarget);

void WindowMass(const KeyShape& shape, uint32_t heads, uint32_t window, float scale, const float* q,
                std::span<const KeyRun> runs, float* out) {
  KVASIR_CHECK(shape.kv_heads == 1, "window mass of {} kv heads", shape.kv_heads);
  HWY_DYNAMIC_DISPATCH(WindowMassTarget)(shape, heads, window, scale, q, runs, out);
}

void AddMassTile(const AttentionShape& shape, const float* q, uint32_t queries, const MassRun& run,
                 std::span<const uint32_t> first, std::span<const uint32_t> last,
                 const AttentionState& state, std::span<const float> weights) {
  KVASIR_CHECK(shape.kv_heads == 1, "a tile of {} kv heads", shape.kv_heads);
  KVASIR_CHECK(first.size() >= queries && last.size() >= queries && weights.size() >= queries,
               "{} queries with {} and {} range ends and {} weights", queries, first.size(),
               last.size(), weights.size());
  KVASIR_CHECK(state.max.size() == size_t{queries} * shape.heads,
               "a state of {} query heads for {} queries", state.max.size(), queries);
  HWY_DYNAMIC_DISPATCH(AddMassTileTarget)(shape, q, queries, run, first, last, state, weights);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
