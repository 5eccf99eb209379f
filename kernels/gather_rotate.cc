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

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

// Factors of one delta, as the pairing wants them. Half-split: [pairs] each. Interleaved: every
// cosine twice, and each sine with minus and plus.
struct Factors {
  float* cosine;
  float* sine;
};

// Multiplies the two factors of a turn. Whole vectors are stored, so that the loads that follow at
// once are forwarded from the store buffer.
void MakeFactors(const RopeAngles::Turn& turn, size_t pairs, RopePairing pairing,
                 const Factors& to) {
  const FloatTag d;
  size_t pair = 0;
  for (; pair + kLanes <= pairs; pair += kLanes) {
    const FloatVec hc = hn::LoadU(d, turn.high + pair);
    const FloatVec hs = hn::LoadU(d, turn.high + pairs + pair);
    const FloatVec lc = hn::LoadU(d, turn.low + pair);
    const FloatVec ls = hn::LoadU(d, turn.low + pairs + pair);
    const FloatVec cosine = hn::NegMulAdd(hs, ls, hn::Mul(hc, lc));
    const FloatVec sine = hn::MulAdd(hc, ls, hn::Mul(hs, lc));
    if (pairing == RopePairing::kInterleaved) {
      hn::StoreInterleaved2(cosine, cosine, d, to.cosine + 2 * pair);
      hn::StoreInterleaved2(hn::Neg(sine), sine, d, to.sine + 2 * pair);
    } else {
      hn::StoreU(cosine, d, to.cosine + pair);
      hn::StoreU(sine, d, to.sine + pair);
    }
  }
  for (; pair < pairs; ++pair) {
    const float hc = turn.high[pair];
    const float hs = turn.high[pairs + pair];
    const float lc = turn.low[pair];
    const float ls = turn.low[pairs + pair];
    const float cosine = hc * lc - hs * ls;
    const float sine = hc * ls + hs * lc;
    if (pairing == RopePairing::kInterleaved) {
      to.cosine[2 * pair] = to.cosine[2 * pair + 1] = cosine;
      to.sine[2 * pair] = -sine;
      to.sine[2 * pair + 1] = sine;
    } else {
      to.cosine[pair] = cosine;
      to.sine[pair] = sine;
    }
  }
}

// Stores one vector as elements of type T, rounding to the nearest even.
template <class T, bool kStream>
HWY_INLINE void StoreRow(FloatVec value, std::byte* at) {
  const FloatTag d;
  if constexpr (std::is_same_v<T, float>) {
    if constexpr (kStream) {
      hn::Stream(value, d, reinterpret_cast<float*>(at));
    } else {
      hn::StoreU(value, d, reinterpret_cast<float*>(at));
    }
  } else {
    const hn::Rebind<uint16_t, FloatTag> narrow;
    hn::Vec<hn::Rebind<uint16_t, FloatTag>> bits;
    if constexpr (std::is_same_v<T, hwy::float16_t>) {
      bits = hn::BitCast(narrow, hn::DemoteTo(hn::Rebind<T, FloatTag>(), value));
    } else {
      // Highway's own conversion to bfloat16 cuts the low bits off.
      const hn::RebindToUnsigned<FloatTag> du;
      const hn::RebindToSigned<FloatTag> di;
      const auto raw = hn::BitCast(du, value);
      const auto high = hn::ShiftRight<16>(raw);
      const auto odd = hn::And(high, hn::Set(du, 1U));
      const auto rounded = hn::ShiftRight<16>(hn::Add(raw, hn::Add(odd, hn::Set(du, 0x7FFFU))));
      const auto nan = hn::RebindMask(du, hn::Ne(value, value));
      const auto quiet = hn::Or(high, hn::Set(du, 0x40U));
      bits = hn::DemoteTo(narrow, hn::BitCast(di, hn::IfThenElse(nan, quiet, rounded)));
    }
    if constexpr (kStream) {
      hn::Stream(bits, narrow, reinterpret_cast<uint16_t*>(at));
    } else {
      hn::StoreU(bits, narrow, reinterpret_cast<uint16_t*>(at));
    }
  }
}

// Pairs behind the last whole vector, one by one.
void RotateTail(const RopeShape& shape, const std::byte* from, const Factors& by, size_t pair,
                std::byte* to) {
  const size_t pairs = shape.rotated_dims / 2;
  const bool interleaved = shape.pairing == RopePairing::kInterleaved;
  for (; pair < pairs; ++pair) {
    const size_t a = interleaved ? 2 * pair : pair;
    const size_t b = interleaved ? 2 * pair + 1 : pair + pairs;
    const float cosine = by.cosine[a];
    const float sine = by.sine[interleaved ? b : a];
    const float x = LoadElement(shape.type, from, a);
    const float y = LoadElement(shape.type, from, b);
    StoreElement(shape.type, to, a, x * cosine - y * sine);
    StoreElement(shape.type, to, b, x * sine + y * cosine);
  }
}

template <class T, bool kStream>
HWY_INLINE void RotateHead(const RopeShape& shape, const std::byte* from, const Factors& by,
                           std::byte* to) {
  const FloatTag d;
  const size_t pairs = shape.rotated_dims / 2;
  size_t pair = 0;
  if (shape.pairing == RopePairing::kInterleaved) {
    for (; pair + kLanes / 2 <= pairs; pair += kLanes / 2) {
      const FloatVec x = LoadRow<T>(from + 2 * pair * sizeof(T));
      const FloatVec straight = hn::Mul(x, hn::LoadU(d, by.cosine + 2 * pair));
      const FloatVec crossed = hn::Shuffle2301(x);
      StoreRow<T, kStream>(hn::MulAdd(crossed, hn::LoadU(d, by.sine + 2 * pair), straight),
                           to + 2 * pair * sizeof(T));
    }
  } else {
    for (; pair + kLanes <= pairs; pair += kLanes) {
      const FloatVec x = LoadRow<T>(from + pair * sizeof(T));
      const FloatVec y = LoadRow<T>(from + (pairs + pair) * sizeof(T));
      const FloatVec cosine = hn::LoadU(d, by.cosine + pair);
      const FloatVec sine = hn::LoadU(d, by.sine + pair);
      StoreRow<T, kStream>(hn::NegMulAdd(y, sine, hn::Mul(x, cosine)), to + pair * sizeof(T));
      StoreRow<T, kStream>(hn::MulAdd(x, sine, hn::Mul(y, cosine)),
                           to + (pairs + pair) * sizeof(T));
    }
  }
  RotateTail(shape, from, by, pair, to);
  const size_t done = shape.rotated_dims * sizeof(T);
  CopyRow<false>(from + done, (shape.head_dim - shape.rotated_dims) * sizeof(T), to + done);
}

template <class T, bool kStream>
void RotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                std::span<const int64_t> deltas, std::byte* destination) {
  thread_local RopeAngles angles;
  angles.Use(shape.theta, shape.rotated_dims);
  const size_t pairs = shape.rotated_dims / 2;
  float* scratch = Scratch(2 * shape.rotated_dims + 1);
  const Factors factors = {.cosine = scratch, .sine = scratch + shape.rotated_dims};
  const size_t head_bytes = shape.head_dim * sizeof(T);
  const size_t row_bytes = head_bytes * shape.kv_heads;
  const size_t ahead = kAheadBytes / row_bytes + 1;
  int64_t made = 0;
  for (size_t row = 0; row < sources.size(); ++row) {
    if (row + ahead < sources.size()) {
      PrefetchRow(sources[row + ahead], row_bytes);
    }
    std::byte* to = destination + row * row_bytes;
    if (deltas[row] == 0) {
      CopyRow<kStream>(sources[row], row_bytes, to);
      continue;
    }
    if (made != deltas[row]) {
      made = deltas[row];
      MakeFactors(angles.Of(made), pairs, shape.pairing, factors);
    }
    for (size_t head = 0; head < shape.kv_heads; ++head) {
      RotateHead<T, kStream>(shape, sources[row] + head * head_bytes, factors,
                             to + head * head_bytes);
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
  // Every vector of a head must be aligned, its second half included.
  const bool even =
      head_bytes % kCacheLine == 0 && shape.rotated_dims / 2 * sizeof(T) % kCacheLine == 0;
  if (even && WorthStreaming(destination, head_bytes, sources.size() * shape.kv_heads)) {
    RotateRows<T, true>(shape, sources, deltas, destination);
  } else {
    RotateRows<T, false>(shape, sources, deltas, destination);
  }
}
#endif  // KVASIR_VECTOR_TARGET

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
