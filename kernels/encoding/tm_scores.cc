// Scores of token-mixed keys: products with codes in place, channels of equally many planes after
// each other, so that the code of each number of planes runs without a branch.

#include "kernels/encoding/tm_format.h"
#include "kernels/encoding/tm_record.h"
#include "kernels/query_groups.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/tm_scores.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what this is compiled for.
#include "kernels/encoding/tm_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Queries that share one expansion of codes: as many as their sums fit the registers.
constexpr size_t kQueriesMax = kLanes == 16 ? 4 : 3;

// A record taken apart.
struct Keys {
  Keys(const RecordShape& of, const std::byte* at)
      : shape(of), record(at), channels(of, at), fits(channels.Fits(of)) {
    if (fits) {
      Classify(at, channels, of.dims, classes);
    }
    LoadScales(at, of.dims, scales);
    LoadMeans();
  }
  HWY_INLINE void LoadMeans() {
    const float scale = LoadHalf(record + kMeanScaleAt);
    ForEachColumn(shape.dims, [&](auto d, uint32_t c) HWY_ATTR {
      const hn::RebindToSigned<decltype(d)> di;
      const hn::Rebind<int8_t, decltype(d)> d8;
      const auto* at = reinterpret_cast<const int8_t*>(record + SideAt(shape) + c);
      const auto code = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, at)));
      hn::StoreU(hn::Mul(hn::Set(d, scale), code), d, means + c);
    });
  }
  const RecordShape& shape;
  const std::byte* record;
  Channels channels;
  bool fits;
  ChannelClasses classes;
  float scales[kRecordDimsMax];
  float means[kRecordDimsMax];
};

// Eight lanes: both halves added, where there are sixteen.
template <class D>
HWY_INLINE hn::Vec<EightTag> Halved(D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 16) {
    return hn::Add(hn::LowerHalf(EightTag(), v), hn::UpperHalf(EightTag(), v));
  } else {
    return v;
  }
}

// A few queries on their way through a record.
template <size_t kQueries>
struct Queries {
  // Times the scales of the channels; and the products with the mean.
  HWY_INLINE Queries(const Keys& keys, const float* q) {
    const uint32_t dims = keys.shape.dims;
    const EightTag eight;
    hn::Vec<EightTag> sums[kQueries];
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries; ++i) {
      sums[i] = hn::Zero(eight);
    }
    ForEachColumn(dims, [&](auto d, uint32_t c) HWY_ATTR {
      const auto scale = hn::LoadU(d, keys.scales + c);
      const auto mean = hn::LoadU(d, keys.means + c);
      KVASIR_UNROLL
      for (size_t i = 0; i < kQueries; ++i) {
        const auto of = hn::LoadU(d, q + i * dims + c);
        hn::StoreU(hn::Mul(of, scale), d, scaled[i] + c);
        sums[i] = hn::Add(sums[i], Halved(d, hn::Mul(of, mean)));
      }
    });
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries; ++i) {
      mean[i] = hn::GetLane(hn::SumOfLanes(eight, sums[i]));
    }
  }
  float scaled[kQueries][kRecordDimsMax];
  float mean[kQueries];
};

template <class D, size_t kQueries>
struct Sums {
  hn::Vec<D> of[kQueries][4];
};

// One channel: its codes become levels, which are multiplied by the queries.
template <uint32_t kRows, uint32_t kPlanes, size_t kQueries>
HWY_INLINE void AddChannel(const Queries<kQueries>& queries, const std::byte* words, uint32_t c,
                           const Table<kPlanes, GroupTag<kRows>>& table,
                           Sums<GroupTag<kRows>, kQueries>& sums) {
  const GroupTag<kRows> d;
  const CodeTag<kRows> d8;
  const auto codes = LoadCodes<kPlanes>(d8, words, kRows / 8);
  const hn::Vec<GroupTag<kRows>> levels[4] = {
      Lookup(d, table, GroupOf<0>(d8, codes)), Lookup(d, table, GroupOf<1>(d8, codes)),
      Lookup(d, table, GroupOf<2>(d8, codes)), Lookup(d, table, GroupOf<3>(d8, codes))};
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    const auto q = hn::Set(d, queries.scaled[i][c]);
    KVASIR_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      sums.of[i][j] = hn::MulAdd(q, levels[j], sums.of[i][j]);
    }
  }
}

#if HWY_TARGET <= HWY_AVX3
// A few channels of few planes: their codes make one index, by which the sum of their products is
// looked up. That is an addition for what are otherwise as many products as channels.
template <uint32_t kPlanes, size_t kQueries>
HWY_INLINE void AddJoined(const Keys& keys, const Queries<kQueries>& queries,
                          const std::byte* planes, const uint32_t (&c)[kJoinedBits / kPlanes],
                          Sums<GroupTag<64>, kQueries>& sums) {
  const GroupTag<64> d;
  const CodeTag<64> d8;
  const auto words = [&](size_t i)
                         HWY_ATTR { return planes + size_t{keys.channels.WordOf(c[i])} * 8; };
  __m512i joined = JoinCodes<kPlanes, 0>(_mm512_setzero_si512(), words(0), 8);
  joined = JoinCodes<kPlanes, kPlanes>(joined, words(1), 8);
  if constexpr (kPlanes == 1) {
    joined = JoinCodes<1, 2>(joined, words(2), 8);
    joined = JoinCodes<1, 3>(joined, words(3), 8);
  }
  const hn::Vec<CodeTag<64>> codes{joined};
  const hn::Vec<hn::RebindToSigned<GroupTag<64>>> index[4] = {
      GroupOf<0>(d8, codes), GroupOf<1>(d8, codes), GroupOf<2>(d8, codes), GroupOf<3>(d8, codes)};
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    Table<kJoinedBits, GroupTag<64>> table = {{hn::Mul(
        hn::Set(d, queries.scaled[i][c[0]]), hn::Load(d, kJoinedBooks.levels[kPlanes][0]))}};
    KVASIR_UNROLL
    for (size_t of = 1; of < kJoinedBits / kPlanes; ++of) {
      table.vecs[0] = hn::MulAdd(hn::Set(d, queries.scaled[i][c[of]]),
                                 hn::Load(d, kJoinedBooks.levels[kPlanes][of]), table.vecs[0]);
    }
    KVASIR_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      sums.of[i][j] = hn::Add(sums.of[i][j], Lookup(d, table, index[j]));
    }
  }
}
#endif

template <uint32_t kRows, uint32_t kPlanes, size_t kQueries>
HWY_INLINE void AddClass(const Keys& keys, const Queries<kQueries>& queries, size_t part,
                         Sums<GroupTag<kRows>, kQueries>& sums) {
  const auto table = LoadTable<kPlanes>(GroupTag<kRows>(), kCodeBooks.levels[kPlanes]);
  const std::byte* words = keys.record + PlanesAt(keys.shape) + part * kTokens<kRows> / 8;
  for (uint32_t at = 0; at < keys.shape.dims; at += 64) {
    uint64_t left = keys.classes.words[kPlanes][at / 64];
    const auto next = [&]() HWY_ATTR {
      const uint32_t c = at + static_cast<uint32_t>(std::countr_zero(left));
      left &= left - 1;
      return c;
    };
#if HWY_TARGET <= HWY_AVX3
    if constexpr (kPlanes <= 2 && hn::MaxLanes(GroupTag<kRows>()) == 16) {
      constexpr size_t kTogether = kJoinedBits / kPlanes;
      for (auto groups = static_cast<size_t>(std::popcount(left)) / kTogether; groups > 0;
           --groups) {
        uint32_t c[kTogether];
        KVASIR_UNROLL
        for (size_t i = 0; i < kTogether; ++i) {
          c[i] = next();
        }
        AddJoined<kPlanes>(keys, queries, words, c, sums);
      }
    }
#endif
    while (left != 0) {
      const uint32_t c = next();
      AddChannel<kRows, kPlanes>(queries, words + size_t{keys.channels.WordOf(c)} * (kRows / 8), c,
                                 table, sums);
    }
  }
}

template <uint32_t kRows, size_t kQueries>
HWY_NOINLINE void ScoreQueries(const Keys& keys, const float* q, float* scores) {
  const GroupTag<kRows> d;
  constexpr size_t kGroup = hn::MaxLanes(d);
  const Queries<kQueries> queries(keys, q);
  HWY_ALIGN float mixed[kQueries][kRows];
  for (size_t part = 0; part < kParts<kRows>; ++part) {
    Sums<GroupTag<kRows>, kQueries> sums;
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries * 4; ++i) {
      sums.of[i / 4][i % 4] = hn::Zero(d);
    }
    if (keys.fits) {
      AddClass<kRows, 1>(keys, queries, part, sums);
      AddClass<kRows, 2>(keys, queries, part, sums);
      AddClass<kRows, 3>(keys, queries, part, sums);
      AddClass<kRows, 4>(keys, queries, part, sums);
      AddClass<kRows, 5>(keys, queries, part, sums);
      AddClass<kRows, 6>(keys, queries, part, sums);
    }
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries; ++i) {
      KVASIR_UNROLL
      for (size_t j = 0; j < 4; ++j) {
        hn::Store(sums.of[i][j], d, mixed[i] + (part * 4 + j) * kGroup);
      }
    }
  }
  constexpr size_t kVecs = kParts<kRows> * 4;
  for (size_t i = 0; i < kQueries; ++i) {
    hn::Vec<GroupTag<kRows>> v[kVecs];
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      v[j] = hn::Load(d, mixed[i] + j * kGroup);
    }
    MixToTokens(d, v);
    const auto mean = hn::Set(d, queries.mean[i]);
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      const auto factor = hn::Load(d, kRowFactors<kRows>.of + j * kGroup);
      hn::StoreU(hn::MulAdd(v[j], factor, mean), d, scores + i * kRows + j * kGroup);
    }
  }
}

template <uint32_t kRows>
void ScoreRows(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
               float* scores) {
  const Keys keys(shape, record);
  while (queries > 0) {
    const auto take = static_cast<uint32_t>(GroupSize(queries, kQueriesMax));
    switch (take) {
      case 1:
        ScoreQueries<kRows, 1>(keys, q, scores);
        break;
      case 2:
        ScoreQueries<kRows, 2>(keys, q, scores);
        break;
      case 3:
        ScoreQueries<kRows, 3>(keys, q, scores);
        break;
      default:
        ScoreQueries<kRows, kQueriesMax>(keys, q, scores);
        break;
    }
    q += size_t{take} * shape.dims;
    scores += size_t{take} * kRows;
    queries -= take;
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void ScoresTarget(const RecordShape& shape, const std::byte* record, const float* q,
                  uint32_t queries, float* scores) {
#if KVASIR_VECTOR_TARGET
  if (shape.rows == 64) {
    return ScoreRows<64>(shape, record, q, queries, scores);
  }
  ScoreRows<32>(shape, record, q, queries, scores);
#else
  scalar::Scores(shape, record, q, queries, scores);
#endif
}

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::tm {

HWY_EXPORT(ScoresTarget);

void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores) {
  HWY_DYNAMIC_DISPATCH(ScoresTarget)(shape, record, q, queries, scores);
}

}  // namespace kvasir::kernels::tm
#endif  // HWY_ONCE
