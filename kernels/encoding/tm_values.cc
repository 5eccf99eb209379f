// Sums of token-mixed values: weights are transformed once, then each channel is a product of codes
// in place with them.
#include <cstring>

#include "kernels/encoding/tm_format.h"
#include "kernels/encoding/tm_record.h"
#include "kernels/query_groups.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/tm_values.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what this is compiled for.
#include "kernels/encoding/tm_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Queries that share one expansion of codes: as their sums share a vector of four lanes.
constexpr size_t kQueriesMax = 4;

// A record taken apart.
template <uint32_t kRows>
struct Values {
  static constexpr size_t kVecs = kParts<kRows> * 4;

  Values(const RecordShape& of, const std::byte* at) : shape(of), record(at), channels(of, at) {
    Classify(at, channels, of.dims, classes);
    LoadScales(at, of.dims, scales);
    LoadNorms(at + SideAt(of), kRows, kRowFactors<kRows>.of, factors);
  }
  const RecordShape& shape;
  const std::byte* record;
  Channels channels;
  ChannelClasses classes;
  float scales[kRecordDimsMax];
  HWY_ALIGN float factors[kRows];  // signs, norms and the factor of the transform
};

template <class D, size_t kQueries, size_t kVecs>
struct Weights {
  hn::Vec<D> of[kQueries][kVecs];  // transformed
};

// The sums of four vectors, in the lanes of each block; those of all blocks added.
template <class D>
HWY_INLINE auto SumOfEach(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c, hn::Vec<D> e) {
  const hn::Repartition<double, D> dd;
  const auto ab =
      hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce =
      hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  const auto blocks = hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, ab, ce)),
                              hn::BitCast(d, hn::InterleaveUpper(dd, ab, ce)));
  const hn::Half<D> half;
  const auto two = hn::Add(hn::LowerHalf(half, blocks), hn::UpperHalf(half, blocks));
  if constexpr (hn::MaxLanes(D()) == 8) {
    return two;
  } else {
    const hn::Half<decltype(half)> quarter;
    return hn::Add(hn::LowerHalf(quarter, two), hn::UpperHalf(quarter, two));
  }
}

// sums[c][4] of the channels of kPlanes planes.
template <uint32_t kRows, uint32_t kPlanes, size_t kQueries>
HWY_INLINE void SumClass(const Values<kRows>& values,
                         const Weights<GroupTag<kRows>, kQueries, Values<kRows>::kVecs>& weights,
                         float* sums) {
  const GroupTag<kRows> d;
  const CodeTag<kRows> d8;
  const hn::CappedTag<float, 4> four;
  const auto table = LoadTable<kPlanes>(d, kCodeBooks.levels[kPlanes]);
  const std::byte* words = values.record + PlanesAt(values.shape);
  ForEachOfClass<kPlanes>(values.classes, values.shape.dims, [&](uint32_t c) HWY_ATTR {
    const std::byte* at = words + size_t{values.channels.WordOf(c)} * (kRows / 8);
    hn::Vec<GroupTag<kRows>> sum[4];
    KVASIR_UNROLL
    for (size_t part = 0; part < kParts<kRows>; ++part) {
      const auto codes = LoadCodes<kPlanes>(d8, at + part * kTokens<kRows> / 8, kRows / 8);
      const hn::Vec<GroupTag<kRows>> levels[4] = {
          Lookup(d, table, GroupOf<0>(d8, codes)), Lookup(d, table, GroupOf<1>(d8, codes)),
          Lookup(d, table, GroupOf<2>(d8, codes)), Lookup(d, table, GroupOf<3>(d8, codes))};
      KVASIR_UNROLL
      for (size_t i = 0; i < kQueries; ++i) {
        const auto* w = weights.of[i] + part * 4;
        const auto low = hn::Mul(levels[0], w[0]), high = hn::Mul(levels[1], w[1]);
        const auto both =
            hn::Add(hn::MulAdd(levels[2], w[2], low), hn::MulAdd(levels[3], w[3], high));
        sum[i] = part == 0 ? both : hn::Add(sum[i], both);
      }
    }
    KVASIR_UNROLL
    for (size_t i = kQueries; i < 4; ++i) {
      sum[i] = sum[0];
    }
    hn::Store(SumOfEach(d, sum[0], sum[1], sum[2], sum[3]), four, sums + size_t{c} * 4);
  });
}

template <uint32_t kRows, size_t kQueries>
HWY_NOINLINE void AddQueries(const Values<kRows>& values, const float* of, float* sums) {
  const GroupTag<kRows> d;
  constexpr size_t kVecs = Values<kRows>::kVecs;
  Weights<GroupTag<kRows>, kQueries, kVecs> weights;
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      const size_t row = j * hn::MaxLanes(d);
      weights.of[i][j] =
          hn::Mul(hn::LoadU(d, of + i * kRows + row), hn::Load(d, values.factors + row));
    }
    MixToGroups(d, weights.of[i]);
  }
  HWY_ALIGN float mixed[kRecordDimsMax * 4];
  const uint32_t dims = values.shape.dims;
  // Channels without a plane are visited by none of what follows.
  std::memset(mixed, 0, size_t{dims} * 4 * sizeof(float));
  SumClass<kRows, 1>(values, weights, mixed);
  SumClass<kRows, 2>(values, weights, mixed);
  SumClass<kRows, 3>(values, weights, mixed);
  SumClass<kRows, 4>(values, weights, mixed);
  SumClass<kRows, 5>(values, weights, mixed);
  SumClass<kRows, 6>(values, weights, mixed);
  const EightTag eight;
  for (uint32_t c = 0; c < dims; c += 8) {
    hn::Vec<EightTag> sum[4];
    hn::LoadInterleaved4(eight, mixed + size_t{c} * 4, sum[0], sum[1], sum[2], sum[3]);
    const auto scale = hn::LoadU(eight, values.scales + c);
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries; ++i) {
      float* to = sums + i * dims + c;
      hn::StoreU(hn::MulAdd(scale, sum[i], hn::LoadU(eight, to)), eight, to);
    }
  }
}

template <uint32_t kRows>
void AddRows(const RecordShape& shape, const std::byte* record, const float* weights,
             uint32_t queries, float* sums) {
  const Values<kRows> values(shape, record);
  if (!values.channels.Fits(shape)) {
    return;
  }
  while (queries > 0) {
    const auto take = static_cast<uint32_t>(GroupSize(queries, kQueriesMax));
    switch (take) {
      case 1:
        AddQueries<kRows, 1>(values, weights, sums);
        break;
      case 2:
        AddQueries<kRows, 2>(values, weights, sums);
        break;
      case 3:
        AddQueries<kRows, 3>(values, weights, sums);
        break;
      default:
        AddQueries<kRows, 4>(values, weights, sums);
        break;
    }
    weights += size_t{take} * kRows;
    sums += size_t{take} * shape.dims;
    queries -= take;
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void AddValuesTarget(const RecordShape& shape, const std::byte* record, const float* weights,
                     uint32_t queries, float* sums) {
#if KVASIR_VECTOR_TARGET
  if (shape.rows == 64) {
    return AddRows<64>(shape, record, weights, queries, sums);
  }
  AddRows<32>(shape, record, weights, queries, sums);
#else
  scalar::AddValues(shape, record, weights, queries, sums);
#endif
}

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::tm {

HWY_EXPORT(AddValuesTarget);

void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums) {
  HWY_DYNAMIC_DISPATCH(AddValuesTarget)(shape, record, weights, queries, sums);
}

}  // namespace kvasir::kernels::tm
#endif  // HWY_ONCE
