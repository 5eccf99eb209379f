// Turning the pairs of heads by RoPE factors. Included once per Highway target, hence the toggled
// guard.
#if defined(KVASIR_KERNELS_ROTATE_HEAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ROTATE_HEAD_INL_H_
#undef KVASIR_KERNELS_ROTATE_HEAD_INL_H_
#else
#define KVASIR_KERNELS_ROTATE_HEAD_INL_H_
#endif

#include <cmath>
#include <cstddef>

#include "kernels/gather.h"
#include "kernels/rope_angles.h"
#include "kernels/row_convert.h"
#include "kernels/row_load-inl.h"
#include "kernels/row_store-inl.h"
#include "kernels/turn_row.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if KVASIR_VECTOR_TARGET

// Factors of interleaved pairs lie in the order of whole vectors: Doubled() is then one operation a
// vector it returns, within 128 bits.
constexpr RopeOrder OrderOf(RopePairing pairing) {
  return pairing == RopePairing::kInterleaved ? RopeOrder{.lanes = kLanes} : RopeOrder{};
}

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
  return {hn::InterleaveLower(d, by.cosine, by.cosine),
          hn::InterleaveUpper(d, by.cosine, by.cosine), hn::InterleaveLower(d, by.sine, by.sine),
          hn::InterleaveUpper(d, by.sine, by.sine)};
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

// Cosines and sines of one delta: [pairs] each at `cosine` and `sine`, or, as the lanes of
// interleaved pairs want them, [2 * pairs] cosines, each twice, at `doubled` and then as many
// sines. Pairs behind the last whole vector are at `cosine` and `sine` always.
struct Factors {
  float* cosine;
  float* sine;
  float* doubled;
};

// The pairs from `pair` on, one by one, with the roundings of whole vectors.
HWY_NOINLINE inline void MakeTail(const RopeAngles::Turn& turn, size_t pairs, size_t pair,
                                  const Factors& to) {
  for (; pair < pairs; ++pair) {
    const float hc = turn.high[pair];
    const float hs = turn.high[pairs + pair];
    const float lc = turn.low[pair];
    const float ls = turn.low[pairs + pair];
    to.cosine[pair] = std::fma(-hs, ls, hc * lc);
    to.sine[pair] = std::fma(hc, ls, hs * lc);
  }
}

// A RopeAngles::Product.
inline void MultiplyTurns(const float* a, const float* b, size_t pairs, float* to) {
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

// Whole vectors are stored, so that the loads that follow at once are forwarded from the store
// buffer.
template <RopePairing kPairing>
HWY_INLINE void MakeFactors(const RopeAngles::Turn& turn, size_t pairs, const Factors& to) {
  const FloatTag d;
  size_t pair = 0;
  for (; pair + kLanes <= pairs; pair += kLanes) {
    const FactorVecs made = Product(turn, pairs, pair);
    if constexpr (kPairing == RopePairing::kInterleaved) {
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

// Products of a turn as they are needed.
struct ProductFactors {
  HWY_INLINE FactorVecs At(size_t pair) const { return Product(turn, pairs, pair); }
  HWY_INLINE DoubledVecs DoubledAt(size_t pair) const { return Doubled(At(pair)); }
  RopeAngles::Turn turn;
  size_t pairs;
};

// Products made before.
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

// Heads one behind the other, all turned by the same factors: whole vectors of pairs are made once
// and serve every head.
struct Heads {
  size_t bytes;  // of one
  const std::byte* from;
  std::byte* to;
};

// Turns x by the factors of its pairs: two lanes a pair.
HWY_INLINE FloatVec TurnLanes(FloatVec x, FloatVec cosine, FloatVec sine) {
  const FloatVec crossed = hn::Mul(hn::Shuffle2301(x), sine);
#if HWY_TARGET == HWY_AVX2
  return FloatVec{_mm256_fmaddsub_ps(x.raw, cosine.raw, crossed.raw)};
#elif HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  return FloatVec{_mm512_fmaddsub_ps(x.raw, cosine.raw, crossed.raw)};
#else
  // Highway has no such operation: the first of a pair takes the difference, the second the sum.
  return hn::OddEven(hn::MulAdd(x, cosine, crossed), hn::MulSub(x, cosine, crossed));
#endif
}

// Turns the whole vectors of interleaved pairs of kHeads heads; returns the number of pairs done.
template <class T, bool kStream, size_t kHeads, class Source>
HWY_INLINE size_t RotateInterleaved(size_t pairs, const Heads& heads, const Source& source) {
  size_t pair = 0;
  for (; pair + kLanes <= pairs; pair += kLanes) {
    const DoubledVecs by = source.DoubledAt(pair);
    KVASIR_UNROLL
    for (size_t head = 0; head < kHeads; ++head) {
      const size_t at = 2 * pair * sizeof(T) + head * heads.bytes;
      const FloatVec low = LoadRow<T>(heads.from + at);
      const FloatVec high = LoadRow<T>(heads.from + at + kLanes * sizeof(T));
      StorePair<T, kStream>(TurnLanes(low, by.cosine_low, by.sine_low),
                            TurnLanes(high, by.cosine_high, by.sine_high), heads.to + at);
    }
  }
  return pair;
}

// The same of pairs of a half and the other.
template <class T, bool kStream, size_t kHeads, class Source>
HWY_INLINE size_t RotateHalves(size_t pairs, const Heads& heads, const Source& source) {
  const size_t half = pairs * sizeof(T);
  size_t pair = 0;
  for (; pair + 2 * kLanes <= pairs; pair += 2 * kLanes) {
    const FactorVecs one = source.At(pair);
    const FactorVecs two = source.At(pair + kLanes);
    KVASIR_UNROLL
    for (size_t head = 0; head < kHeads; ++head) {
      const size_t at = pair * sizeof(T) + head * heads.bytes;
      const FloatVec x1 = LoadRow<T>(heads.from + at);
      const FloatVec x2 = LoadRow<T>(heads.from + at + kLanes * sizeof(T));
      const FloatVec y1 = LoadRow<T>(heads.from + half + at);
      const FloatVec y2 = LoadRow<T>(heads.from + half + at + kLanes * sizeof(T));
      StorePair<T, kStream>(hn::NegMulAdd(y1, one.sine, hn::Mul(x1, one.cosine)),
                            hn::NegMulAdd(y2, two.sine, hn::Mul(x2, two.cosine)), heads.to + at);
      StorePair<T, kStream>(hn::MulAdd(x1, one.sine, hn::Mul(y1, one.cosine)),
                            hn::MulAdd(x2, two.sine, hn::Mul(y2, two.cosine)),
                            heads.to + half + at);
    }
  }
  if (pair + kLanes <= pairs) {
    const FactorVecs by = source.At(pair);
    KVASIR_UNROLL
    for (size_t head = 0; head < kHeads; ++head) {
      const size_t at = pair * sizeof(T) + head * heads.bytes;
      const FloatVec x = LoadRow<T>(heads.from + at);
      const FloatVec y = LoadRow<T>(heads.from + half + at);
      StoreOne<T>(hn::NegMulAdd(y, by.sine, hn::Mul(x, by.cosine)), heads.to + at);
      StoreOne<T>(hn::MulAdd(x, by.sine, hn::Mul(y, by.cosine)), heads.to + half + at);
    }
    pair += kLanes;
  }
  return pair;
}

// Turns pairs of one head from `pair` on, one by one.
template <RopePairing kPairing>
HWY_NOINLINE void RotateTail(RowType type, size_t pairs, const std::byte* from, const Factors& by,
                             size_t pair, std::byte* to) {
  constexpr bool kInterleaved = kPairing == RopePairing::kInterleaved;
  for (; pair < pairs; ++pair) {
    const size_t a = kInterleaved ? 2 * pair : pair;
    const size_t b = kInterleaved ? 2 * pair + 1 : pair + pairs;
    float x = LoadElement(type, from, a);
    float y = LoadElement(type, from, b);
    TurnPair(kPairing, by.cosine[pair], by.sine[pair], x, y);
    StoreElement(type, to, a, x);
    StoreElement(type, to, b, y);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ROTATE_HEAD_INL_H_
