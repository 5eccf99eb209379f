// AddMassRuns: the scores of decode once more, turned into shares of the finished softmax.
//
// As in attention_decode.cc rows are collected into tiles of 64, so that short runs cost no more
// than long ones; queries are scaled the same way, so that the scores are the same bits.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "kernels/query_groups.h"
#include "kernels/row_tiles.h"
#include "kernels/scores.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mass_runs.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/copy_row-inl.h"
#include "kernels/row_dot-inl.h"
#include "kernels/row_load-inl.h"
#include "kernels/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Rows of a tile whose masses lie side by side.
struct Segment {
  float* mass;
  size_t head_stride;
  size_t begin, end;  // rows of the tile
};

struct MassTile {
  const std::byte* k[kTileRows];
  Segment segments[kTileRows];
  size_t rows = 0;
  size_t segment_count = 0;
};

// Hands out the rows of the runs in tiles; a tile never mixes query sets.
class MassTileSource {
 public:
  explicit MassTileSource(std::span<const MassRun> runs) : runs_(runs) {}

  // Fills `tile`; its rows are 0 at the end. Pointers behind the last row repeat it, as in
  // RowTileSource.
  void Next(MassTile& tile, uint32_t& query_set) {
    tile.rows = tile.segment_count = 0;
    while (tile.rows < kTileRows && run_ < runs_.size()) {
      const MassRun& it = runs_[run_];
      if (row_ == it.run.rows) {
        ++run_;
        row_ = 0;
        continue;
      }
      if (tile.rows == 0) {
        query_set = it.run.query_set;
      } else if (query_set != it.run.query_set) {
        break;
      }
      const size_t take = std::min<size_t>(kTileRows - tile.rows, it.run.rows - row_);
      for (size_t i = 0; i < take; ++i) {
        tile.k[tile.rows + i] = it.run.k + (row_ + i) * it.run.k_stride;
      }
      tile.segments[tile.segment_count++] = {.mass = it.mass + row_,
                                             .head_stride = it.head_stride,
                                             .begin = tile.rows,
                                             .end = tile.rows + take};
      tile.rows += take;
      row_ += take;
    }
    for (size_t row = tile.rows; row > 0 && row % kPadRows != 0; ++row) {
      tile.k[row] = tile.k[tile.rows - 1];
    }
  }

 private:
  std::span<const MassRun> runs_;
  size_t run_ = 0;
  size_t row_ = 0;
};

struct MassWork {
  MassWork(const AttentionShape& wanted, const AttentionState& finished, float share)
      : shape(wanted),
        state(finished),
        weight(share),
        heads(size_t{wanted.kv_heads} * wanted.heads),
        k(wanted.k_dim) {
    q = Scratch(heads * k.Padded() + kTileRows);
    mass = q + heads * k.Padded();
  }
  const AttentionShape& shape;
  const AttentionState& state;
  float weight;
  size_t heads;  // query heads of all kv heads
  Split k;
  float* q;     // [head][k.Padded()]: scaled queries, zero where vectors overlap
  float* mass;  // [kTileRows]: of the kv head at work
};

// mass[row] += the row's share in the softmax of kHeads query heads from `head` on, times weight.
// `next`: a tile to prefetch from, or null.
template <class T, size_t kHeads>
HWY_NOINLINE void AddHeads(const MassWork& work, const MassTile& tile, size_t offset, size_t head,
                           const MassTile* next) {
  const FloatTag d;
  constexpr size_t kQuads = kLanes / 4;
  HWY_ALIGN float quads[kHeads * kLanes * kQuads];
  FloatVec max[kHeads], factor[kHeads];
  KVASIR_UNROLL
  for (size_t i = 0; i < kHeads; ++i) {
    const float sum = work.state.sum[head + i];
    // Where nothing was seen any score may be far above the maximum: 0 * infinity would be NaN.
    const bool nothing = sum == 0.0F;
    max[i] = hn::Set(d, nothing ? std::numeric_limits<float>::max() : work.state.max[head + i]);
    factor[i] = hn::Set(d, nothing ? 0.0F : work.weight / sum);
  }
  const float* q = work.q + head * work.k.Padded();
  for (size_t row = 0; row < tile.rows; row += kLanes) {
    for (size_t quad = 0; quad < kQuads; ++quad) {
      const size_t at = row + quad * 4;
      for (size_t ahead = at; next != nullptr && ahead < std::min(at + 4, next->rows); ++ahead) {
        PrefetchRow(next->k[ahead] + offset, work.k.dims * sizeof(T));
      }
      DotQuad<T, kHeads>(work.k, tile.k + at, offset, q, quads + quad * kLanes, kLanes * kQuads);
    }
    FloatVec mass = hn::Load(d, work.mass + row);
    KVASIR_UNROLL
    for (size_t i = 0; i < kHeads; ++i) {
      const FloatVec score = Limited(SumBlocks(quads + i * kLanes * kQuads));
      mass = hn::MulAdd(ExpOf(hn::Sub(score, max[i])), factor[i], mass);
    }
    hn::Store(mass, d, work.mass + row);
  }
}

template <class T>
void AddTile(const MassWork& work, const MassTile& tile, const MassTile& next) {
  for (size_t kv_head = 0; kv_head < work.shape.kv_heads; ++kv_head) {
    std::fill(work.mass, work.mass + kTileRows, 0.0F);
    const size_t offset = kv_head * work.k.dims * sizeof(T);
    const size_t end = (kv_head + 1) * work.shape.heads;
    const MassTile* ahead = &next;
    for (size_t head = end - work.shape.heads; head < end;) {
      const size_t take = GroupSize(end - head, kGroupMax);
      switch (take) {
        case 1:
          AddHeads<T, 1>(work, tile, offset, head, ahead);
          break;
        case 2:
          AddHeads<T, 2>(work, tile, offset, head, ahead);
          break;
        case 3:
          AddHeads<T, 3>(work, tile, offset, head, ahead);
          break;
        default:
          AddHeads<T, kGroupMax>(work, tile, offset, head, ahead);
          break;
      }
      ahead = nullptr;
      head += take;
    }
    for (size_t i = 0; i < tile.segment_count; ++i) {
      const Segment& segment = tile.segments[i];
      float* into = segment.mass + kv_head * segment.head_stride;
      for (size_t row = segment.begin; row < segment.end; ++row) {
        into[row - segment.begin] += work.mass[row];
      }
    }
  }
}

template <class T>
void AddRunsTyped(const MassWork& work, const float* q, std::span<const MassRun> runs) {
  MassTile tiles[2];
  uint32_t sets[2] = {0, 0};
  MassTileSource source(runs);
  source.Next(tiles[0], sets[0]);
  const size_t set_floats = work.heads * work.k.dims;
  for (size_t current = 0, loaded = SIZE_MAX; tiles[current].rows > 0; current ^= 1U) {
    source.Next(tiles[current ^ 1U], sets[current ^ 1U]);
    if (loaded != sets[current]) {
      loaded = sets[current];
      for (size_t head = 0; head < work.heads; ++head) {
        PadQuery(work.k, q + loaded * set_floats + head * work.k.dims, work.shape.scale,
                 work.q + head * work.k.Padded());
      }
    }
    AddTile<T>(work, tiles[current], tiles[current ^ 1U]);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void AddMassRunsTarget(const AttentionShape& shape, const float* q, std::span<const MassRun> runs,
                       const AttentionState& state, float weight) {
#if KVASIR_VECTOR_TARGET
  if (shape.k_dim >= kLanes) {
    const MassWork work(shape, state, weight);
    switch (shape.type) {
      case RowType::kF16:
        return AddRunsTyped<hwy::float16_t>(work, q, runs);
      case RowType::kBF16:
        return AddRunsTyped<hwy::bfloat16_t>(work, q, runs);
      case RowType::kF32:
        return AddRunsTyped<float>(work, q, runs);
      case RowType::kE4M3:
        break;
    }
  }
#endif
  scalar::AddMassRuns(shape, q, runs, state, weight);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(AddMassRunsTarget);

void AddMassRuns(const AttentionShape& shape, const float* q, std::span<const MassRun> runs,
                 const AttentionState& state, float weight) {
  KVASIR_CHECK(state.max.size() == size_t{shape.kv_heads} * shape.heads,
               "a state of {} query heads for {} x {}", state.max.size(), shape.kv_heads,
               shape.heads);
  HWY_DYNAMIC_DISPATCH(AddMassRunsTarget)(shape, q, runs, state, weight);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
