// DotRows, KeyNormScores, KeyDifferenceScores: every key comes from memory once a pass.
//
// Rows of all runs are collected as pointers into tiles of 64; each is read from front to back.
// Where there are gaps between rows, those a few KiB ahead are prefetched.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/row_tiles.h"
#include "kernels/scores.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/key_scores.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/copy_row-inl.h"
#include "kernels/row_dot-inl.h"
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Two tiles: the one at work, and the next, whose first rows are prefetched.
class KeyPass {
 public:
  KeyPass(std::span<const KeyRun> runs, size_t row_bytes)
      : source_(runs),
        row_bytes_(row_bytes),
        ahead_(std::min(kAheadBytes / row_bytes + 1, kTileRows)),
        dense_(std::all_of(runs.begin(), runs.end(),
                           [&](const KeyRun& run) { return run.stride == row_bytes; })) {
    source_.Next(tiles_[0]);
    source_.Next(tiles_[1]);
  }
  const KeyTile& Tile() const { return tiles_[current_]; }
  void Step() {
    source_.Next(tiles_[current_]);
    current_ ^= 1U;
  }
  // Prefetches what is due while rows [row, row + 4) of the tile are worked on.
  HWY_INLINE void Prefetch(size_t row) const {
    if (dense_) {
      return;
    }
    const KeyTile& tile = tiles_[current_];
    const KeyTile& next = tiles_[current_ ^ 1U];
    for (size_t at = row + ahead_; at < row + ahead_ + 4; ++at) {
      if (at < tile.rows) {
        PrefetchRow(tile.k[at], row_bytes_);
      } else if (at - tile.rows < next.rows) {
        PrefetchRow(next.k[at - tile.rows], row_bytes_);
      }
    }
  }

 private:
  KeyTileSource source_;
  size_t row_bytes_;
  size_t ahead_;
  bool dense_;  // one stream, which processors prefetch best by themselves
  KeyTile tiles_[2];
  size_t current_ = 0;
};

// Calls use(tile, first row of the tile) for each tile.
template <class Use>
void ForTiles(std::span<const KeyRun> runs, size_t row_bytes, const Use& use) {
  KeyPass pass(runs, row_bytes);
  for (size_t first = 0; pass.Tile().rows > 0; first += kTileRows, pass.Step()) {
    use(pass, first);
  }
}

// sums[0..kTileRows) of the tile's rows: of their products with `q`, or with themselves. Of what is
// behind the tile's rows nothing can be said.
template <class T, bool kSquares>
HWY_INLINE void SumTile(const KeyPass& pass, const Split& split, const float* q, float* sums) {
  const FloatTag d;
  constexpr size_t kQuads = kLanes / 4;
  HWY_ALIGN float quads[kLanes * kQuads];
  const KeyTile& tile = pass.Tile();
  for (size_t row = 0; row < tile.rows; row += kLanes) {
    for (size_t quad = 0; quad < kQuads; ++quad) {
      const std::byte* const* rows = tile.k + row + quad * 4;
      pass.Prefetch(row + quad * 4);
      const FloatVec s0 = DotRow<T, kSquares>(split, rows[0], q);
      const FloatVec s1 = DotRow<T, kSquares>(split, rows[1], q);
      const FloatVec s2 = DotRow<T, kSquares>(split, rows[2], q);
      const FloatVec s3 = DotRow<T, kSquares>(split, rows[3], q);
      hn::Store(SumWithinBlocks(s0, s1, s2, s3), d, quads + quad * kLanes);
    }
    hn::Store(SumBlocks(quads), d, sums + row);
  }
}

template <class T>
void DotTyped(const Split& split, const float* q, std::span<const KeyRun> runs, float* out) {
  float* padded = Scratch(split.Padded());
  PadQuery(split, q, 1.0F, padded);
  ForTiles(runs, split.dims * sizeof(T), [&](const KeyPass& pass, size_t first) HWY_ATTR {
    HWY_ALIGN float sums[kTileRows];
    SumTile<T, false>(pass, split, padded, sums);
    std::memcpy(out + first, sums, pass.Tile().rows * sizeof(float));
  });
}

template <class T>
void NormTyped(const Split& split, std::span<const KeyRun> runs, float* out) {
  float* ones = Scratch(split.Padded() + split.dims);
  std::fill(ones + split.Padded(), ones + split.Padded() + split.dims, 1.0F);
  PadQuery(split, ones + split.Padded(), 1.0F, ones);
  ForTiles(runs, split.dims * sizeof(T), [&](const KeyPass& pass, size_t first) HWY_ATTR {
    HWY_ALIGN float sums[kTileRows];
    SumTile<T, true>(pass, split, ones, sums);
    for (size_t row = 0; row < pass.Tile().rows; ++row) {
      out[first + row] = -std::sqrt(sums[row]);
    }
  });
}

// sum[split.Padded()] += the tile's rows divided by their norms.
template <class T>
HWY_INLINE void AddUnitRows(const KeyTile& tile, const Split& split, const float* norms,
                            float* sum) {
  const FloatTag d;
  for (size_t vec = 0; vec < split.vecs; ++vec) {
    const size_t at = split.Offset(vec) * sizeof(T);
    // A tile has a sum of its own, so that the error does not grow with the number of rows.
    FloatVec even = hn::Zero(d);
    FloatVec odd = hn::Zero(d);
    size_t row = 0;
    for (; row + 2 <= tile.rows; row += 2) {
      even = hn::MulAdd(LoadRow<T>(tile.k[row] + at), hn::Set(d, norms[row]), even);
      odd = hn::MulAdd(LoadRow<T>(tile.k[row + 1] + at), hn::Set(d, norms[row + 1]), odd);
    }
    if (row < tile.rows) {
      even = hn::MulAdd(LoadRow<T>(tile.k[row] + at), hn::Set(d, norms[row]), even);
    }
    float* into = sum + vec * kLanes;
    hn::Store(hn::Add(hn::Load(d, into), hn::Add(even, odd)), d, into);
  }
}

template <class T>
void DifferenceTyped(const Split& split, std::span<const KeyRun> runs, float* out) {
  float* ones = Scratch(3 * split.Padded());
  float* sum = ones + split.Padded();
  float* anchor = sum + split.Padded();
  std::fill(anchor, anchor + split.dims, 1.0F);
  PadQuery(split, anchor, 1.0F, ones);
  std::fill(sum, sum + split.Padded(), 0.0F);
  size_t total = 0;
  ForTiles(runs, split.dims * sizeof(T), [&](const KeyPass& pass, size_t first) HWY_ATTR {
    const KeyTile& tile = pass.Tile();
    HWY_ALIGN float sums[kTileRows];
    SumTile<T, true>(pass, split, ones, sums);
    for (size_t row = 0; row < tile.rows; ++row) {
      out[first + row] = std::sqrt(sums[row]);
      sums[row] = 1.0F / std::max(out[first + row], kNormFloor);
    }
    AddUnitRows<T>(tile, split, sums, sum);
    total += tile.rows;
  });
  float squares = 0;
  for (size_t vec = 0; vec < split.vecs; ++vec) {
    std::memcpy(anchor + split.Offset(vec), sum + vec * kLanes, kLanes * sizeof(float));
  }
  for (size_t dim = 0; dim < split.dims; ++dim) {
    anchor[dim] /= static_cast<float>(total);
    squares += anchor[dim] * anchor[dim];
  }
  const float length = std::max(std::sqrt(squares), kCosineFloor);
  float* padded = ones;
  PadQuery(split, anchor, 1.0F, padded);
  ForTiles(runs, split.dims * sizeof(T), [&](const KeyPass& pass, size_t first) HWY_ATTR {
    HWY_ALIGN float sums[kTileRows];
    SumTile<T, false>(pass, split, padded, sums);
    for (size_t row = 0; row < pass.Tile().rows; ++row) {
      out[first + row] = -sums[row] / std::max(out[first + row], kCosineFloor) / length;
    }
  });
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void DotRowsTarget(const KeyShape& shape, const float* q, std::span<const KeyRun> runs,
                   float* out) {
#if KVASIR_VECTOR_TARGET
  // Heads lie one behind the other in rows and query alike: one long dot product.
  const Split split(size_t{shape.kv_heads} * shape.dim);
  if (split.dims >= kLanes) {
    switch (shape.type) {
      case RowType::kF16:
        return DotTyped<hwy::float16_t>(split, q, runs, out);
      case RowType::kBF16:
        return DotTyped<hwy::bfloat16_t>(split, q, runs, out);
      case RowType::kF32:
        return DotTyped<float>(split, q, runs, out);
      case RowType::kE4M3:
        break;
    }
  }
#endif
  scalar::DotRows(shape, q, runs, out);
}

void KeyNormTarget(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
#if KVASIR_VECTOR_TARGET
  const Split split(shape.dim);
  if (split.dims >= kLanes) {
    switch (shape.type) {
      case RowType::kF16:
        return NormTyped<hwy::float16_t>(split, runs, out);
      case RowType::kBF16:
        return NormTyped<hwy::bfloat16_t>(split, runs, out);
      case RowType::kF32:
        return NormTyped<float>(split, runs, out);
      case RowType::kE4M3:
        break;
    }
  }
#endif
  scalar::KeyNormScores(shape, runs, out);
}

void KeyDifferenceTarget(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
#if KVASIR_VECTOR_TARGET
  const Split split(shape.dim);
  if (split.dims >= kLanes) {
    switch (shape.type) {
      case RowType::kF16:
        return DifferenceTyped<hwy::float16_t>(split, runs, out);
      case RowType::kBF16:
        return DifferenceTyped<hwy::bfloat16_t>(split, runs, out);
      case RowType::kF32:
        return DifferenceTyped<float>(split, runs, out);
      case RowType::kE4M3:
        break;
    }
  }
#endif
  scalar::KeyDifferenceScores(shape, runs, out);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(DotRowsTarget);
HWY_EXPORT(KeyNormTarget);
HWY_EXPORT(KeyDifferenceTarget);

void DotRows(const KeyShape& shape, const float* q, std::span<const KeyRun> runs, float* out) {
  HWY_DYNAMIC_DISPATCH(DotRowsTarget)(shape, q, runs, out);
}

void KeyNormScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
  KVASIR_CHECK(shape.kv_heads == 1, "key norms of {} kv heads", shape.kv_heads);
  HWY_DYNAMIC_DISPATCH(KeyNormTarget)(shape, runs, out);
}

void KeyDifferenceScores(const KeyShape& shape, std::span<const KeyRun> runs, float* out) {
  KVASIR_CHECK(shape.kv_heads == 1, "key differences of {} kv heads", shape.kv_heads);
  HWY_DYNAMIC_DISPATCH(KeyDifferenceTarget)(shape, runs, out);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
