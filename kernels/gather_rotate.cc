// GatherRotateRows: the angles of a delta are made once and serve all heads of the row.
#include <algorithm>

#include "base/check.h"
#include "kernels/gather.h"
#include "kernels/rope_angles.h"
#include "kernels/row_convert.h"
#include "kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gather_rotate.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/copy_row-inl.h"
#include "kernels/row_load-inl.h"
#include "kernels/row_store-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Cosines and sines of one delta, [pairs] each, at `cosine` and `sine`. For interleaved pairs of
// rows of several heads `doubled` has them as the lanes want them: [2 * pairs] cosines, each twice,
// then as many sines.
struct Factors {
  float* cosine;
  float* sine;
  float* doubled;
};

// Both factors of kLanes pairs.
struct FactorVecs {
  FloatVec cosine, sine;
};

// Both factors of kLanes interleaved pairs, two lanes a pair.
struct DoubledVecs {
  FloatVec cosine_low, cosine_high, sine_low, sine_high;
};

HWY_INLINE DoubledVecs Doubled(const FactorVecs& by) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  // Lane i takes the factors of pair i / 2, and of those kLanes / 2 pairs on.
  const auto low = hn::IndicesFromVec(d, hn::ShiftRight<1>(hn::Iota(di, 0)));
  const auto high = hn::IndicesFromVec(d, hn::ShiftRight<1>(hn::Iota(di, kLanes)));
  return {hn::TableLookupLanes(by.cosine, low), hn::TableLookupLanes(by.cosine, high),
          hn::TableLookupLanes(by.sine, low), hn::TableLookupLanes(by.sine, high)};
}

// The product of the two factors of a turn, for kLanes pairs from `pair` on.
HWY_INLINE FactorVecs Product(const RopeAngles::Turn& turn, size_t pairs, size_t pair) {
  const FloatTag d;
  const FloatVec hc = hn::LoadU(d, turn.high + pair);
  const FloatVec hs = hn::LoadU(d, turn.high + pairs + pair);
  const FloatVec lc = hn::LoadU(d, turn.low + pair);
  const FloatVec ls = hn::LoadU(d, turn.low + pairs + pair);
  return {hn::NegMulAdd(hs, ls, hn::Mul(hc, lc)), hn::MulAdd(hc, ls, hn::Mul(hs, lc))};
}

// The pairs from `pair` on, one by one.
void MakeTail(const RopeAngles::Turn& turn, size_t pairs, size_t pair, const Factors& to) {
  for (; pair < pairs; ++pair) {
    const float hc = turn.high[pair];
    const float hs = turn.high[pairs + pair];
    const float lc = turn.low[pair];
    const float ls = turn.low[pairs + pair];
    to.cosine[pair] = hc * lc - hs * ls;
    to.sine[pair] = hc * ls + hs * lc;
  }
}

// A RopeAngles::Product.
void MultiplyTurns(const float* a, const float* b, size_t pairs, float* to) {
  const FloatTag d;
  size_t pair = 0;
  for (; pair + kLanes <= pairs; pair += kLanes) {
    const FactorVecs made = Product({.high = a, .low = b}, pairs, pair);
    hn::StoreU(made.cosine, d, to + pair);
    hn::StoreU(made.sine, d, to + pairs + pair);
  }
  MakeTail({.high = a, .low = b}, pairs, pair,
           {.cosine = to, .sine = to + pairs, .doubled = nullptr});
}

// Products of a turn as they are needed.
struct ProductFactors {
  HWY_INLINE FactorVecs At(size_t pair) const { return Product(turn, pairs, pair); }
  HWY_INLINE DoubledVecs DoubledAt(size_t pair) const { return Doubled(At(pair)); }
  RopeAngles::Turn turn;
  size_t pairs;
};

// Up to so many heads a row products are made anew for each: cheaper than a way through memory.
constexpr size_t kFusedHeads = kLanes >= 16 ? 2 : 1;

// Products made before, for all heads of a row.
struct StoredFactors {
  HWY_INLINE FactorVecs At(size_t pair) const {
    const FloatTag d;
    return {hn::LoadU(d, by.cosine + pair), hn::LoadU(d, by.sine + pair)};
  }
  HWY_INLINE DoubledVecs DoubledAt(size_t pair) const {
    const FloatTag d;
    const float* cosine = by.doubled + 2 * pair;
    const float* sine = cosine + 2 * pairs;
    return {hn::LoadU(d, cosine), hn::LoadU(d, cosine + kLanes), hn::LoadU(d, sine),
            hn::LoadU(d, sine + kLanes)};
  }
  Factors by;
  size_t pairs;
};

// Whole vectors are stored, so that the loads that follow at once are forwarded from the store
// buffer.
void MakeFactors(const RopeAngles::Turn& turn, size_t pairs, RopePairing pairing,
                 const Factors& to) {
  const FloatTag d;
  size_t pair = 0;
  for (; pair + kLanes <= pairs; pair += kLanes) {
    const FactorVecs made = Product(turn, pairs, pair);
    if (pairing == RopePairing::kInterleaved) {
      const DoubledVecs doubled = Doubled(made);
      float* cosine = to.doubled + 2 * pair;
      float* sine = cosine + 2 * pairs;
      hn::StoreU(doubled.cosine_low, d, cosine);
      hn::StoreU(doubled.cosine_high, d, cosine + kLanes);
      hn::StoreU(doubled.sine_low, d, sine);
      hn::StoreU(doubled.sine_high, d, sine + kLanes);
    } else {
      hn::StoreU(made.cosine, d, to.cosine + pair);
      hn::StoreU(made.sine, d, to.sine + pair);
    }
  }
  MakeTail(turn, pairs, pair, to);
}

// Pairs behind the last whole vector, one by one.
void RotateTail(const RopeShape& shape, const std::byte* from, const Factors& by, size_t pair,
                std::byte* to) {
  const size_t pairs = shape.rotated_dims / 2;
  const bool interleaved = shape.pairing == RopePairing::kInterleaved;
  for (; pair < pairs; ++pair) {
    const size_t a = interleaved ? 2 * pair : pair;
    const size_t b = interleaved ? 2 * pair + 1 : pair + pairs;
    const float cosine = by.cosine[pair];
    const float sine = by.sine[pair];
    const float x = LoadElement(shape.type, from, a);
    const float y = LoadElement(shape.type, from, b);
    StoreElement(shape.type, to, a, x * cosine - y * sine);
    StoreElement(shape.type, to, b, x * sine + y * cosine);
  }
}

// Turns x by the factors of its pairs: two lanes a pair.
HWY_INLINE FloatVec Turn(FloatVec x, FloatVec cosine, FloatVec sine) {
  const FloatVec crossed = hn::Mul(hn::Shuffle2301(x), sine);
#if HWY_TARGET == HWY_AVX2
  return FloatVec{_mm256_fmaddsub_ps(x.raw, cosine.raw, crossed.raw)};
#elif HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  return FloatVec{_mm512_fmaddsub_ps(x.raw, cosine.raw, crossed.raw)};
#else
  // Highway has no such operation: the first of a pair takes the difference, the second the sum.
  const FloatVec straight = hn::Mul(x, cosine);
  return hn::OddEven(hn::Add(straight, crossed), hn::Sub(straight, crossed));
#endif
}

// Both return the number of pairs done.
template <class T, bool kStream, class Source>
HWY_INLINE size_t RotateInterleaved(size_t pairs, const std::byte* from, const Source& source,
                                    std::byte* to) {
  size_t pair = 0;
  for (; pair + kLanes <= pairs; pair += kLanes) {
    const DoubledVecs by = source.DoubledAt(pair);
    FloatVec low, high;
    LoadPair<T>(from + 2 * pair * sizeof(T), low, high);
    low = Turn(low, by.cosine_low, by.sine_low);
    high = Turn(high, by.cosine_high, by.sine_high);
    StorePair<T, kStream>(low, high, to + 2 * pair * sizeof(T));
  }
  return pair;
}

template <class T, bool kStream, class Source>
HWY_INLINE size_t RotateHalves(size_t pairs, const std::byte* from, const Source& source,
                               std::byte* to) {
  const size_t half = pairs * sizeof(T);
  size_t pair = 0;
  for (; pair + 2 * kLanes <= pairs; pair += 2 * kLanes) {
    const size_t at = pair * sizeof(T);
    const FactorVecs one = source.At(pair);
    const FactorVecs two = source.At(pair + kLanes);
    FloatVec x1, x2, y1, y2;
    LoadPair<T>(from + at, x1, x2);
    LoadPair<T>(from + half + at, y1, y2);
    StorePair<T, kStream>(hn::NegMulAdd(y1, one.sine, hn::Mul(x1, one.cosine)),
                          hn::NegMulAdd(y2, two.sine, hn::Mul(x2, two.cosine)), to + at);
    StorePair<T, kStream>(hn::MulAdd(x1, one.sine, hn::Mul(y1, one.cosine)),
                          hn::MulAdd(x2, two.sine, hn::Mul(y2, two.cosine)), to + half + at);
  }
  if (pair + kLanes <= pairs) {
    const size_t at = pair * sizeof(T);
    const FactorVecs by = source.At(pair);
    const FloatVec x = LoadRow<T>(from + at);
    const FloatVec y = LoadRow<T>(from + half + at);
    StoreOne<T>(hn::NegMulAdd(y, by.sine, hn::Mul(x, by.cosine)), to + at);
    StoreOne<T>(hn::MulAdd(x, by.sine, hn::Mul(y, by.cosine)), to + half + at);
    pair += kLanes;
  }
  return pair;
}

// tail: factors of the pairs behind the last whole vector.
template <class T, bool kStream, class Source>
HWY_INLINE void RotateHead(const RopeShape& shape, const std::byte* from, const Source& source,
                           const Factors& tail, std::byte* to) {
  const size_t pairs = shape.rotated_dims / 2;
  const size_t done = shape.pairing == RopePairing::kInterleaved
                          ? RotateInterleaved<T, kStream>(pairs, from, source, to)
                          : RotateHalves<T, kStream>(pairs, from, source, to);
  if (done < pairs) {
    RotateTail(shape, from, tail, done, to);
  }
  if (shape.rotated_dims < shape.head_dim) {
    const size_t rotated = shape.rotated_dims * sizeof(T);
    CopyRow<false>(from + rotated, (shape.head_dim - shape.rotated_dims) * sizeof(T), to + rotated);
  }
}

// Bytes of a row that are prefetched at once.
constexpr size_t kSmallRow = 512;

// Prefetches rows on their way: far ones into the second-level cache, near ones from there.
struct RowsAhead {
  HWY_INLINE void Prefetch(size_t row, size_t at, size_t bytes) const {
    // Over small gaps these were measured to cost more than they bring.
    if (row + far < sources.size() &&
        (reinterpret_cast<uintptr_t>(sources[row + far]) -
         reinterpret_cast<uintptr_t>(sources[row + far - 1])) > kSmallStep) {
      PrefetchRow(sources[row + far] + at, bytes);
    }
    if (row + near < sources.size()) {
      PrefetchNear(sources[row + near] + at, bytes);
    }
  }
  static constexpr size_t kSmallStep = 512;
  std::span<const std::byte* const> sources;
  size_t far, near;  // rows ahead
};

template <class T, bool kStream>
void RotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                std::span<const int64_t> deltas, std::byte* destination) {
  thread_local RopeAngles angles;
  angles.Use(shape.theta, shape.rotated_dims);
  const size_t pairs = shape.rotated_dims / 2;
  float* scratch = Scratch(6 * pairs + 1);
  const Factors factors = {
      .cosine = scratch + 4 * pairs, .sine = scratch + 5 * pairs, .doubled = scratch};
  const size_t head_bytes = shape.head_dim * sizeof(T);
  const size_t row_bytes = head_bytes * shape.kv_heads;
  const size_t whole = pairs / kLanes * kLanes;
  const RowsAhead rows{sources, kAheadBytes / row_bytes + 1, kNearBytes / row_bytes + 1};
  int64_t made = 0;
  for (size_t row = 0; row < sources.size(); ++row) {
    std::byte* to = destination + row * row_bytes;
    if (deltas[row] == 0) {
      rows.Prefetch(row, 0, row_bytes);
      CopyRow<kStream>(sources[row], row_bytes, to);
      continue;
    }
    if (shape.kv_heads <= kFusedHeads) {
      const RopeAngles::Turn turn = angles.Of(deltas[row], MultiplyTurns);
      if (whole < pairs) {
        MakeTail(turn, pairs, whole, factors);
      }
      rows.Prefetch(row, 0, row_bytes);
      for (size_t at = 0; at < row_bytes; at += head_bytes) {
        RotateHead<T, kStream>(shape, sources[row] + at, ProductFactors{turn, pairs}, factors,
                               to + at);
      }
      continue;
    }
    if (made != deltas[row]) {
      made = deltas[row];
      MakeFactors(angles.Of(made, MultiplyTurns), pairs, shape.pairing, factors);
    }
    if (row_bytes <= kSmallRow) {
      rows.Prefetch(row, 0, row_bytes);
    }
    for (size_t at = 0; at < row_bytes; at += head_bytes) {
      // Not a long row at once: so many requests would hold up the loads of this one.
      if (row_bytes > kSmallRow) {
        rows.Prefetch(row, at, head_bytes);
      }
      RotateHead<T, kStream>(shape, sources[row] + at, StoredFactors{factors, pairs}, factors,
                             to + at);
    }
  }
  if constexpr (kStream) {
    hwy::FlushStream();
  }
}

template <class T>
void RotateTyped(const RopeShape& shape, std::span<const std::byte* const> sources,
                 std::span<const int64_t> deltas, std::byte* destination) {
  const size_t head_bytes = shape.head_dim * sizeof(T);
  // Every pair of vectors of a head must be aligned, its second half included.
  const bool even =
      head_bytes % kCacheLine == 0 && shape.rotated_dims / 2 * sizeof(T) % kCacheLine == 0;
  if (even && WorthStreaming(destination, head_bytes, sources.size() * shape.kv_heads)) {
    RotateRows<T, true>(shape, sources, deltas, destination);
  } else {
    RotateRows<T, false>(shape, sources, deltas, destination);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void GatherRotateTarget(const RopeShape& shape, std::span<const std::byte* const> sources,
                        std::span<const int64_t> deltas, std::byte* destination) {
#if KVASIR_VECTOR_TARGET
  switch (shape.type) {
    case RowType::kF16:
      return RotateTyped<hwy::float16_t>(shape, sources, deltas, destination);
    case RowType::kBF16:
      return RotateTyped<hwy::bfloat16_t>(shape, sources, deltas, destination);
    case RowType::kF32:
      return RotateTyped<float>(shape, sources, deltas, destination);
  }
#endif
  scalar::GatherRotateRows(shape, sources, deltas, destination);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(GatherRotateTarget);

void GatherRotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                      std::span<const int64_t> deltas, std::byte* destination) {
  KVASIR_CHECK(deltas.size() == sources.size(), "{} rows with {} deltas", sources.size(),
               deltas.size());
  KVASIR_CHECK(shape.rotated_dims % 2 == 0 && shape.rotated_dims <= shape.head_dim,
               "{} rotated of {} dimensions", shape.rotated_dims, shape.head_dim);
  KVASIR_CHECK(shape.head_dim > 0 && shape.kv_heads > 0, "rows of no bytes");
  HWY_DYNAMIC_DISPATCH(GatherRotateTarget)(shape, sources, deltas, destination);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
