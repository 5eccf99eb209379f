// AttendRuns: few queries, every row read once.
//
// Rows of all runs are collected as pointers into tiles of 64. Per tile: scores of all heads (a key
// is converted once for a group of heads), one softmax update, then the values weighted into
// accumulators that stay in registers. While scores are computed the tile's values are prefetched;
// while values are added, the next tile's keys.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/check.h"
#include "kernels/attention.h"
#include "kernels/query_groups.h"
#include "kernels/row_tiles.h"
#include "kernels/scratch.h"

#include <hwy/cache_control.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_decode.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these two are compiled for.
#include "kernels/row_dot-inl.h"
#include "kernels/row_load-inl.h"

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

constexpr size_t kCacheLine = 64;
struct Work {
  Work(const AttentionShape& wanted, AttentionState& target)
      : shape(wanted),
        state(target),
        heads(size_t{wanted.kv_heads} * wanted.heads),
        k(wanted.k_dim),
        v(wanted.v_dim) {
    const size_t head_floats = k.Padded() + v.Padded() + kTileRows + kLanes;
    q = Scratch(heads * head_floats);
    acc = q + heads * k.Padded();
    weights = acc + heads * v.Padded();
    keep = weights + heads * kTileRows;
  }
  const AttentionShape& shape;
  AttentionState& state;
  size_t heads;  // query heads of all kv heads
  Split k, v;
  float* q;        // [head][k.Padded()]: scaled queries, zero where vectors overlap
  float* acc;      // [head][v.Padded()]
  float* weights;  // [head][kTileRows]: scores, then softmax weights
  float* keep;     // [head]: factor for what was accumulated before this tile
};

HWY_INLINE void PrefetchRow(const std::byte* row, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kCacheLine) {
    hwy::Prefetch(row + at);
  }
}

// The part of a tile that one call works on: some query heads from `head` on, all of one kv head.
struct Part {
  size_t head;
  size_t k_offset, v_offset;  // of the kv head in a row, in bytes
  bool leads;                 // the first of its kv head: it prefetches
};

// weights[head][row] = score; rows behind the tile's end get -infinity.
template <class T, size_t kHeads>
HWY_NOINLINE void Score(const Work& work, const RowTile& tile, const Part& part) {
  const FloatTag d;
  constexpr size_t kQuads = kLanes / 4;
  HWY_ALIGN float quads[kHeads * kLanes * kQuads];
  const FloatVec most = hn::Set(d, std::numeric_limits<float>::max());
  const size_t bytes = work.v.dims * sizeof(T);
  for (size_t row = 0; row < tile.rows; row += kLanes) {
    for (size_t quad = 0; quad < kQuads; ++quad) {
      if (part.leads) {
        for (size_t ahead = row + quad * 4; ahead < row + quad * 4 + 4; ++ahead) {
          PrefetchRow(tile.v[ahead] + part.v_offset, bytes);
        }
      }
      DotQuad<T, kHeads>(work.k, tile.k + row + quad * 4, part.k_offset,
                         work.q + part.head * work.k.Padded(), quads + quad * kLanes,
                         kLanes * kQuads);
    }
    KVASIR_UNROLL
    for (size_t i = 0; i < kHeads; ++i) {
      // +infinity would make the weights NaN; -infinity is fine, its weight is zero.
      hn::Store(hn::Min(SumBlocks(quads + i * kLanes * kQuads), most), d,
                work.weights + (part.head + i) * kTileRows + row);
    }
  }
  for (size_t i = part.head; i < part.head + kHeads; ++i) {
    std::fill(work.weights + i * kTileRows + tile.rows, work.weights + (i + 1) * kTileRows,
              -std::numeric_limits<float>::infinity());
  }
}

// Turns the scores of one head into weights and moves its maximum and sum on.
HWY_INLINE void Softmax(const Work& work, size_t rows, size_t head) {
  const FloatTag d;
  float* weights = work.weights + head * kTileRows;
  FloatVec top = hn::Load(d, weights);
  for (size_t row = kLanes; row < rows; row += kLanes) {
    top = hn::Max(top, hn::Load(d, weights + row));
  }
  const float before = work.state.max[head];
  const float max = std::max(before, hn::GetLane(hn::MaxOfLanes(d, top)));
  const float keep = max == before ? 1.0F : std::exp(before - max);
  const FloatVec shift = hn::Set(d, max);
  FloatVec sum = hn::Zero(d);
  for (size_t row = 0; row < rows; row += kLanes) {
    const FloatVec weight = hn::Exp(d, hn::Sub(hn::Load(d, weights + row), shift));
    hn::Store(weight, d, weights + row);
    sum = hn::Add(sum, weight);
  }
  work.state.max[head] = max;
  work.state.sum[head] = work.state.sum[head] * keep + hn::GetLane(hn::SumOfLanes(d, sum));
  work.keep[head] = keep;
}

// acc[head][vec..] = acc * keep + weights * values, for kHeads heads and kVecs vectors of the
// values.
template <class T, size_t kHeads, size_t kVecs>
HWY_NOINLINE void AddValues(const Work& work, const RowTile& tile, const RowTile& next,
                            const Part& part, size_t vec) {
  const FloatTag d;
  FloatVec sum[kHeads][kVecs];
  size_t at[kVecs];
  KVASIR_UNROLL
  for (size_t j = 0; j < kVecs; ++j) {
    at[j] = part.v_offset + work.v.Offset(vec + j) * sizeof(T);
  }
  float* acc = work.acc + part.head * work.v.Padded() + vec * kLanes;
  KVASIR_UNROLL
  for (size_t i = 0; i < kHeads; ++i) {
    const FloatVec keep = hn::Set(d, work.keep[part.head + i]);
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      sum[i][j] = hn::Mul(keep, hn::Load(d, acc + i * work.v.Padded() + j * kLanes));
    }
  }
  const float* weights = work.weights + part.head * kTileRows;
  const size_t ahead = part.leads && vec == 0 ? next.rows : 0;
  const size_t ahead_bytes = work.k.dims * sizeof(T);
  for (size_t row = 0; row < tile.rows; ++row) {
    if (row < ahead) {
      PrefetchRow(next.k[row] + part.k_offset, ahead_bytes);
    }
    FloatVec weight[kHeads];
    KVASIR_UNROLL
    for (size_t i = 0; i < kHeads; ++i) {
      weight[i] = hn::Set(d, weights[i * kTileRows + row]);
    }
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      const FloatVec value = LoadRow<T>(tile.v[row] + at[j]);
      KVASIR_UNROLL
      for (size_t i = 0; i < kHeads; ++i) {
        sum[i][j] = hn::MulAdd(weight[i], value, sum[i][j]);
      }
    }
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kHeads; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      hn::Store(sum[i][j], d, acc + i * work.v.Padded() + j * kLanes);
    }
  }
}

template <class T, size_t kHeads>
void ProcessGroup(const Work& work, const RowTile& tile, const RowTile& next, const Part& part) {
  Score<T, kHeads>(work, tile, part);
  for (size_t i = part.head; i < part.head + kHeads; ++i) {
    Softmax(work, tile.rows, i);
  }
  constexpr size_t kVecs = 4;
  size_t vec = 0;
  for (; vec + kVecs <= work.v.vecs; vec += kVecs) {
    AddValues<T, kHeads, kVecs>(work, tile, next, part, vec);
  }
  for (; vec < work.v.vecs; ++vec) {
    AddValues<T, kHeads, 1>(work, tile, next, part, vec);
  }
}

template <class T>
void ProcessTile(const Work& work, const RowTile& tile, const RowTile& next) {
  for (size_t head = 0; head < work.heads;) {
    const size_t kv_head = head / work.shape.heads;
    const size_t left = (kv_head + 1) * work.shape.heads - head;
    const Part part = {.head = head,
                       .k_offset = kv_head * work.k.dims * sizeof(T),
                       .v_offset = kv_head * work.v.dims * sizeof(T),
                       .leads = left == work.shape.heads};
    const size_t take = GroupSize(left, kGroupMax);
    switch (take) {
      case 1:
        ProcessGroup<T, 1>(work, tile, next, part);
        break;
      case 2:
        ProcessGroup<T, 2>(work, tile, next, part);
        break;
      case 3:
        ProcessGroup<T, 3>(work, tile, next, part);
        break;
      default:
        ProcessGroup<T, kGroupMax>(work, tile, next, part);
        break;
    }
    head += take;
  }
}

void LoadQueries(const Work& work, const float* set) {
  for (size_t head = 0; head < work.heads; ++head) {
    PadQuery(work.k, set + head * work.k.dims, work.shape.scale, work.q + head * work.k.Padded());
  }
}

void CopyAccumulators(const Work& work, bool load) {
  for (size_t head = 0; head < work.heads; ++head) {
    for (size_t vec = 0; vec < work.v.vecs; ++vec) {
      float* whole = work.state.acc.data() + head * work.v.dims + work.v.Offset(vec);
      float* padded = work.acc + head * work.v.Padded() + vec * kLanes;
      std::memcpy(load ? padded : whole, load ? whole : padded, kLanes * sizeof(float));
    }
  }
}

template <class T>
void AttendTyped(const Work& work, const float* q, std::span<const AttentionRun> runs) {
  RowTile tiles[2];
  uint32_t sets[2] = {0, 0};
  RowTileSource source(runs);
  source.Next(tiles[0], sets[0]);
  CopyAccumulators(work, true);
  const size_t set_floats = work.heads * work.k.dims;
  for (size_t current = 0, loaded = SIZE_MAX; tiles[current].rows > 0; current ^= 1U) {
    source.Next(tiles[current ^ 1U], sets[current ^ 1U]);
    if (loaded != sets[current]) {
      loaded = sets[current];
      LoadQueries(work, q + loaded * set_floats);
    }
    ProcessTile<T>(work, tiles[current], tiles[current ^ 1U]);
  }
  CopyAccumulators(work, false);
}
#endif  // KVASIR_VECTOR_TARGET

void AttendRunsTarget(const AttentionShape& shape, const float* q,
                      std::span<const AttentionRun> runs, AttentionState& state) {
#if KVASIR_VECTOR_TARGET
  if (shape.k_dim >= kLanes && shape.v_dim >= kLanes) {
    const Work work(shape, state);
    switch (shape.type) {
      case RowType::kF16:
        return AttendTyped<hwy::float16_t>(work, q, runs);
      case RowType::kBF16:
        return AttendTyped<hwy::bfloat16_t>(work, q, runs);
      case RowType::kF32:
        return AttendTyped<float>(work, q, runs);
      case RowType::kE4M3:
        break;
    }
  }
#endif
  scalar::AttendRuns(shape, q, runs, state);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(AttendRunsTarget);

void AttendRuns(const AttentionShape& shape, const float* q, std::span<const AttentionRun> runs,
                AttentionState& state) {
  KVASIR_CHECK(state.max.size() == size_t{shape.kv_heads} * shape.heads &&
                   state.acc.size() == state.max.size() * shape.v_dim,
               "a state of {} query heads for {} x {}", state.max.size(), shape.kv_heads,
               shape.heads);
  HWY_DYNAMIC_DISPATCH(AttendRunsTarget)(shape, q, runs, state);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
