// Scores, AddValues: codes become floats in registers, a few queries at a time; scales and zeros
// are applied outside of the loop over codes.
#include <algorithm>
#include <cstring>

#include "kernels/encoding/int_layout.h"
#include "kernels/encoding/int_record.h"
#include "kernels/query_groups.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/int_attend.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/encoding/int_code-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Queries that share one pass over the codes: what the registers hold.
constexpr size_t kGroupMax = kLanes >= 16 ? 4 : 3;

// kLanes f16 numbers; behind the end of the scales lie zeros, and behind those codes.
HWY_INLINE FloatVec LoadHalves(const std::byte* from, size_t index) {
  return LoadRow<hwy::float16_t>(from + index * sizeof(uint16_t));
}

// ---- keys

// Queries with the scales of channels in them, and their product with the zeros.
struct ScaledQueries {
  HWY_INLINE void Set(const IntLayout& layout, const std::byte* record, const float* q,
                      size_t query) {
    const FloatTag d;
    FloatVec sum = hn::Zero(d);
    for (size_t dim = 0; dim < layout.dims; dim += kLanes) {
      const FloatVec x = LoadPart(q, dim, layout.dims);
      hn::Store(hn::Mul(x, LoadHalves(record, dim)), d, scaled[query] + dim);
      const FloatVec zero = LoadHalves(record + layout.ZerosAt(), dim);
      // Behind the dimensions may lie anything, so not 0 * zero.
      sum = hn::MulAdd(x,
                       IsWhole(dim, layout.dims)
                           ? zero
                           : hn::ZeroExtendVector(d, hn::LowerHalf(HalfFloatTag(), zero)),
                       sum);
    }
    offset[query] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
  HWY_ALIGN float scaled[kGroupMax][kRecordDimsMax + kLanes];
  float offset[kGroupMax];
};

// Strips of rows whose sums the registers hold beside the queries.
constexpr size_t kStripsAtOnce = kLanes >= 16 ? 4 : 2;

// Scores of kLanes rows from `row` on of each of kCount strips from kFirst on.
template <int kBits, size_t kStrips, size_t kFirst, size_t kCount, size_t kQueries>
HWY_INLINE void ScoreStrips(const IntLayout& layout, const std::byte* codes,
                            const ScaledQueries& queries, size_t row, float* scores) {
  constexpr size_t kShared = 32 / kBits / kStrips;
  const FloatTag d;
  FloatVec sums[kQueries][kCount];
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    const FloatVec offset = hn::Set(d, queries.offset[i]);
    KVASIR_UNROLL
    for (size_t strip = 0; strip < kCount; ++strip) {
      sums[i][strip] = offset;
    }
  }
  for (size_t run = 0; run < layout.stretch; ++run) {
    WordVec words = LoadWords(codes + (run * kIntRunRows + row) * sizeof(uint32_t));
    words = hn::ShiftRight<kBits * kFirst>(words);
    KVASIR_UNROLL
    for (size_t shared = 0; shared < kShared; ++shared) {
      FloatVec x[kQueries];
      KVASIR_UNROLL
      for (size_t i = 0; i < kQueries; ++i) {
        x[i] = hn::Set(d, queries.scaled[i][run + shared * layout.stretch]);
      }
      KVASIR_UNROLL
      for (size_t strip = 0; strip < kCount; ++strip) {
        const FloatVec code = LowCodes<kBits>(words);
        words = hn::ShiftRight<kBits>(words);
        KVASIR_UNROLL
        for (size_t i = 0; i < kQueries; ++i) {
          sums[i][strip] = hn::MulAdd(x[i], code, sums[i][strip]);
        }
      }
      if constexpr (kShared > 1) {
        words = hn::ShiftRight<kBits*(kStrips - kCount)>(words);
      }
    }
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t strip = 0; strip < kCount; ++strip) {
      hn::StoreU(sums[i][strip], d,
                 scores + i * layout.rows + (kFirst + strip) * kIntRunRows + row);
    }
  }
}

template <int kBits, size_t kStrips, size_t kQueries>
HWY_NOINLINE void ScoreGroup(const IntLayout& layout, const std::byte* record, const float* q,
                             float* scores) {
  ScaledQueries queries;
  for (size_t i = 0; i < kQueries; ++i) {
    queries.Set(layout, record, q + i * layout.dims, i);
  }
  constexpr size_t kCount = std::min(kStrips, kStripsAtOnce);
  const std::byte* codes = record + layout.CodesAt();
  for (size_t row = 0; row < kIntRunRows; row += kLanes) {
    ScoreStrips<kBits, kStrips, 0, kCount, kQueries>(layout, codes, queries, row, scores);
    if constexpr (kCount < kStrips) {
      ScoreStrips<kBits, kStrips, kCount, kStrips - kCount, kQueries>(layout, codes, queries, row,
                                                                      scores);
    }
  }
}

template <int kBits, size_t kStrips>
void ScoreQueries(const IntLayout& layout, const std::byte* record, const float* q, size_t queries,
                  float* scores) {
  for (size_t done = 0; done < queries;) {
    const size_t take = GroupSize(queries - done, kGroupMax);
    const auto score = take == 1   ? ScoreGroup<kBits, kStrips, 1>
                       : take == 2 ? ScoreGroup<kBits, kStrips, 2>
                       : take == 3 ? ScoreGroup<kBits, kStrips, 3>
                                   : ScoreGroup<kBits, kStrips, kGroupMax>;
    score(layout, record, q + done * layout.dims, scores + done * layout.rows);
    done += take;
  }
}

// ---- values

// Weights with the scales of the rows of one group of channels in them, and their product with the
// zeros.
struct ScaledWeights {
  HWY_INLINE void Set(const IntLayout& layout, const std::byte* record, const float* weights,
                      size_t group, size_t query) {
    const FloatTag d;
    FloatVec sum = hn::Zero(d);
    for (size_t row = 0; row < layout.rows; row += kLanes) {
      const FloatVec weight = hn::LoadU(d, weights + row);
      const size_t index = group * layout.rows + row;
      hn::Store(hn::Mul(weight, LoadHalves(record, index)), d, scaled[query] + row);
      sum = hn::MulAdd(weight, LoadHalves(record + layout.ZerosAt(), index), sum);
    }
    offset[query] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
  HWY_ALIGN float scaled[kGroupMax][kRecordRowsMax];
  float offset[kGroupMax];
};

// sums[query][dim ..] for kVecs vectors of one group.
template <int kBits, size_t kQueries, size_t kVecs>
HWY_NOINLINE void AddVectors(const IntLayout& layout, const std::byte* codes,
                             const ScaledWeights& weights, size_t dim, float* sums) {
  constexpr size_t kPerWord = 32 / kBits;
  const FloatTag d;
  FloatVec sum[kQueries][kVecs];
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      sum[i][j] = hn::Add(LoadPart(sums + i * layout.dims, dim + j * kLanes, layout.dims),
                          hn::Set(d, weights.offset[i]));
    }
  }
  for (size_t row = 0; row < layout.rows; row += kPerWord) {
    WordVec words[kVecs];
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      words[j] = LoadWordsPart(codes, dim + j * kLanes, layout.dims);
    }
    codes += layout.dims * sizeof(uint32_t);
    KVASIR_UNROLL
    for (size_t code = 0; code < kPerWord; ++code) {
      FloatVec weight[kQueries];
      KVASIR_UNROLL
      for (size_t i = 0; i < kQueries; ++i) {
        weight[i] = hn::Set(d, weights.scaled[i][row + code]);
      }
      KVASIR_UNROLL
      for (size_t j = 0; j < kVecs; ++j) {
        const FloatVec x = LowCodes<kBits>(words[j]);
        words[j] = hn::ShiftRight<kBits>(words[j]);
        KVASIR_UNROLL
        for (size_t i = 0; i < kQueries; ++i) {
          sum[i][j] = hn::MulAdd(weight[i], x, sum[i][j]);
        }
      }
    }
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      StorePart(sum[i][j], sums + i * layout.dims, dim + j * kLanes, layout.dims);
    }
  }
}

template <int kBits, size_t kQueries>
void AddGroup(const IntLayout& layout, const std::byte* record, const float* weights, float* sums) {
  constexpr size_t kVecs = kLanes >= 16 ? 4 : 2;
  const std::byte* codes = record + layout.CodesAt();
  ScaledWeights scaled;
  for (size_t group = 0; group < layout.groups; ++group) {
    for (size_t i = 0; i < kQueries; ++i) {
      scaled.Set(layout, record, weights + i * layout.rows, group, i);
    }
    size_t dim = group * kIntGroupDims;
    const size_t end = std::min(dim + kIntGroupDims, layout.dims);
    for (; dim + kVecs * kLanes <= end; dim += kVecs * kLanes) {
      AddVectors<kBits, kQueries, kVecs>(layout, codes, scaled, dim, sums);
    }
    for (; dim < end; dim += kLanes) {
      AddVectors<kBits, kQueries, 1>(layout, codes, scaled, dim, sums);
    }
  }
}

template <int kBits>
void AddQueries(const IntLayout& layout, const std::byte* record, const float* weights,
                size_t queries, float* sums) {
  for (size_t done = 0; done < queries;) {
    const size_t take = GroupSize(queries - done, kGroupMax);
    const auto add = take == 1   ? AddGroup<kBits, 1>
                     : take == 2 ? AddGroup<kBits, 2>
                     : take == 3 ? AddGroup<kBits, 3>
                                 : AddGroup<kBits, kGroupMax>;
    add(layout, record, weights + done * layout.rows, sums + done * layout.dims);
    done += take;
  }
}
#endif  // KVASIR_VECTOR_TARGET

void ScoresTarget(const RecordShape& shape, const std::byte* record, const float* q,
                  uint32_t queries, float* scores) {
#if KVASIR_VECTOR_TARGET
  const IntLayout layout(shape);
  if (layout.key) {
    const bool few = layout.strips == 2;
    const auto score = layout.bits == 8 ? (few ? ScoreQueries<8, 2> : ScoreQueries<8, 4>)
                                        : (few ? ScoreQueries<4, 2> : ScoreQueries<4, 4>);
    return score(layout, record, q, queries, scores);
  }
#endif
  ints::scalar::Scores(shape, record, q, queries, scores);
}

void ValuesTarget(const RecordShape& shape, const std::byte* record, const float* weights,
                  uint32_t queries, float* sums) {
#if KVASIR_VECTOR_TARGET
  const IntLayout layout(shape);
  if (!layout.key) {
    const auto add = layout.bits == 8 ? AddQueries<8> : AddQueries<4>;
    return add(layout, record, weights, queries, sums);
  }
#endif
  ints::scalar::AddValues(shape, record, weights, queries, sums);
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::ints {

HWY_EXPORT(ScoresTarget);
HWY_EXPORT(ValuesTarget);

void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores) {
  HWY_DYNAMIC_DISPATCH(ScoresTarget)(shape, record, q, queries, scores);
}

void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums) {
  HWY_DYNAMIC_DISPATCH(ValuesTarget)(shape, record, weights, queries, sums);
}

}  // namespace kvasir::kernels::ints
#endif  // HWY_ONCE
