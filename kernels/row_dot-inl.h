// Dot products of rows in place with queries. Included once per Highway target, hence the toggled
// guard.
#if defined(KVASIR_KERNELS_ROW_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ROW_DOT_INL_H_
#undef KVASIR_KERNELS_ROW_DOT_INL_H_
#else
#define KVASIR_KERNELS_ROW_DOT_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

// Queries that share one pass over a tile: what fits the registers beside four row vectors.
constexpr size_t kGroupMax = kLanes >= 16 ? 4 : 3;

// A vector of `dims` elements as `vecs` vectors of kLanes. The last one starts early and overlaps
// its neighbour when dims is no multiple of kLanes, so no element behind the row is touched.
// REQUIRES: dims >= kLanes.
struct Split {
  explicit Split(size_t count) : dims(count), vecs((count + kLanes - 1) / kLanes) {}
  size_t Offset(size_t vec) const { return std::min(vec * kLanes, dims - kLanes); }
  size_t Padded() const { return vecs * kLanes; }
  size_t dims, vecs;
};

// from[dims] * factor -> to[split.Padded()], zero where vectors overlap.
inline void PadQuery(const Split& split, const float* from, float factor, float* to) {
  const size_t whole = split.dims / kLanes * kLanes;
  for (size_t i = 0; i < split.Padded(); ++i) {
    // Lane of the early last vector; those before `whole` are covered by its neighbour.
    const size_t dim = i < whole ? i : split.dims - split.Padded() + i;
    to[i] = i < whole || dim >= whole ? from[dim] * factor : 0.0F;
  }
}

// Lane i of the result is the sum over the 128-bit block of the i-th vector, for each block.
HWY_INLINE FloatVec SumWithinBlocks(FloatVec a, FloatVec b, FloatVec c, FloatVec d) {
  const FloatTag df;
  const hn::Repartition<double, FloatTag> dd;
  const FloatVec ab = hn::Add(hn::InterleaveLower(df, a, b), hn::InterleaveUpper(df, a, b));
  const FloatVec cd = hn::Add(hn::InterleaveLower(df, c, d), hn::InterleaveUpper(df, c, d));
  const auto ab2 = hn::BitCast(dd, ab);
  const auto cd2 = hn::BitCast(dd, cd);
  return hn::Add(hn::BitCast(df, hn::InterleaveLower(dd, ab2, cd2)),
                 hn::BitCast(df, hn::InterleaveUpper(dd, ab2, cd2)));
}

// Adds the blocks of kLanes / 4 results of SumWithinBlocks: one sum a lane, in order.
HWY_INLINE FloatVec SumBlocks(const float* quads) {
  const FloatTag d;
  const FloatVec a = hn::Load(d, quads);
  const FloatVec b = hn::Load(d, quads + kLanes);
  if constexpr (kLanes == 8) {
    return hn::Add(hn::ConcatLowerLower(d, b, a), hn::ConcatUpperUpper(d, b, a));
  } else {
    const FloatVec c = hn::Load(d, quads + 2 * kLanes);
    const FloatVec e = hn::Load(d, quads + 3 * kLanes);
    const FloatVec ac = hn::Add(hn::ConcatLowerLower(d, c, a), hn::ConcatUpperUpper(d, c, a));
    const FloatVec be = hn::Add(hn::ConcatLowerLower(d, e, b), hn::ConcatUpperUpper(d, e, b));
    return hn::Add(hn::OddEvenBlocks(be, ac), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(ac, be)));
  }
}

// The lanes of the result add up to the product of the key with a padded query, or, where kSquare,
// to the square of the key, `q` being ones. A row is read from front to back: processors that
// prefetch by themselves follow one stream better than four.
template <class T, bool kSquare>
HWY_INLINE FloatVec DotRow(const Split& split, const std::byte* row, const float* q) {
  const FloatTag d;
  FloatVec sums[4];
  KVASIR_UNROLL
  for (size_t i = 0; i < 4; ++i) {
    sums[i] = hn::Zero(d);
  }
  const auto add = [&](FloatVec x, size_t vec, FloatVec sum) HWY_ATTR {
    const FloatVec y = hn::Load(d, q + vec * kLanes);
    return kSquare ? hn::MulAdd(hn::Mul(x, y), x, sum) : hn::MulAdd(x, y, sum);
  };
  const size_t whole = split.dims / kLanes;
  size_t vec = 0;
  for (; vec + 4 <= whole; vec += 4) {
    const std::byte* at = row + vec * kLanes * sizeof(T);
    FloatVec x[4];
    LoadPair<T>(at, x[0], x[1]);
    LoadPair<T>(at + 2 * kLanes * sizeof(T), x[2], x[3]);
    KVASIR_UNROLL
    for (size_t i = 0; i < 4; ++i) {
      sums[i] = add(x[i], vec + i, sums[i]);
    }
  }
  for (; vec < split.vecs; ++vec) {
    sums[0] = add(LoadRow<T>(row + split.Offset(vec) * sizeof(T)), vec, sums[0]);
  }
  return hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
}

// Dot products of 4 keys with kHeads padded queries, summed within blocks into
// quads[head * quads_stride + lane].
template <class T, size_t kHeads>
HWY_INLINE void DotQuad(const Split& split, const std::byte* const* rows, size_t offset,
                        const float* q, float* quads, size_t quads_stride) {
  const FloatTag d;
  const std::byte *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  FloatVec s0[kHeads], s1[kHeads], s2[kHeads], s3[kHeads];
  KVASIR_UNROLL
  for (size_t head = 0; head < kHeads; ++head) {
    s0[head] = s1[head] = s2[head] = s3[head] = hn::Zero(d);
  }
  for (size_t vec = 0; vec < split.vecs; ++vec) {
    const size_t at = offset + split.Offset(vec) * sizeof(T);
    const FloatVec k0 = LoadRow<T>(r0 + at);
    const FloatVec k1 = LoadRow<T>(r1 + at);
    const FloatVec k2 = LoadRow<T>(r2 + at);
    const FloatVec k3 = LoadRow<T>(r3 + at);
    KVASIR_UNROLL
    for (size_t head = 0; head < kHeads; ++head) {
      const FloatVec x = hn::Load(d, q + head * split.Padded() + vec * kLanes);
      s0[head] = hn::MulAdd(x, k0, s0[head]);
      s1[head] = hn::MulAdd(x, k1, s1[head]);
      s2[head] = hn::MulAdd(x, k2, s2[head]);
      s3[head] = hn::MulAdd(x, k3, s3[head]);
    }
  }
  KVASIR_UNROLL
  for (size_t head = 0; head < kHeads; ++head) {
    hn::Store(SumWithinBlocks(s0[head], s1[head], s2[head], s3[head]), d,
              quads + head * quads_stride);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ROW_DOT_INL_H_
