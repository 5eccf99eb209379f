// Scores and AddValues of rows as they were written.
#include <algorithm>

#include "kernels/encoding/rows_record.h"
#include "kernels/query_groups.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/rows_attend.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/row_dot-inl.h"
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

template <class T, size_t kQueries>
HWY_NOINLINE void ScoreGroup(const RecordShape& shape, const std::byte* record, const float* q,
                             float* scores) {
  constexpr size_t kQuads = kLanes / 4;
  const Split split(shape.dims);
  HWY_ALIGN float padded[kQueries * (kRecordDimsMax + kLanes)];
  HWY_ALIGN float quads[kQueries * kLanes * kQuads];
  for (size_t i = 0; i < kQueries; ++i) {
    PadQuery(split, q + i * shape.dims, 1.0F, padded + i * split.Padded());
  }
  for (size_t row = 0; row < shape.rows; row += kLanes) {
    for (size_t quad = 0; quad < kQuads; ++quad) {
      const std::byte* keys[4];
      for (size_t i = 0; i < 4; ++i) {
        keys[i] = record + (row + quad * 4 + i) * shape.dims * sizeof(T);
      }
      DotQuad<T, kQueries>(split, keys, 0, padded, quads + quad * kLanes, kLanes * kQuads);
    }
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries; ++i) {
      hn::StoreU(SumBlocks(quads + i * kLanes * kQuads), FloatTag(), scores + i * shape.rows + row);
    }
  }
}

// Rows [first, last), for kVecs vectors of the values.
struct Rows {
  size_t first, last;
};

template <class T, size_t kQueries, size_t kVecs>
HWY_NOINLINE void AddVectors(const RecordShape& shape, const std::byte* record,
                             const float* weights, const Rows& rows, size_t vec, float* sums) {
  const FloatTag d;
  const Split split(shape.dims);
  FloatVec sum[kQueries][kVecs];
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      sum[i][j] = hn::LoadU(d, sums + i * split.Padded() + (vec + j) * kLanes);
    }
  }
  for (size_t row = rows.first; row < rows.last; ++row) {
    const std::byte* values = record + row * shape.dims * sizeof(T);
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      const FloatVec value = LoadRow<T>(values + split.Offset(vec + j) * sizeof(T));
      KVASIR_UNROLL
      for (size_t i = 0; i < kQueries; ++i) {
        sum[i][j] = hn::MulAdd(hn::Set(d, weights[i * shape.rows + row]), value, sum[i][j]);
      }
    }
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kVecs; ++j) {
      hn::StoreU(sum[i][j], d, sums + i * split.Padded() + (vec + j) * kLanes);
    }
  }
}

Rows Weighted(const RecordShape& shape, const float* weights, size_t queries) {
  const auto weighs = [&](size_t row) {
    for (size_t i = 0; i < queries; ++i) {
      if (weights[i * shape.rows + row] != 0) {
        return true;
      }
    }
    return false;
  };
  Rows rows = {0, shape.rows};
  while (rows.first < rows.last && !weighs(rows.first)) {
    ++rows.first;
  }
  while (rows.first < rows.last && !weighs(rows.last - 1)) {
    --rows.last;
  }
  return rows;
}

template <class T, size_t kQueries>
void AddGroup(const RecordShape& shape, const std::byte* record, const float* weights,
              float* sums) {
  constexpr size_t kVecs = 4;
  const Split split(shape.dims);
  const Rows rows = Weighted(shape, weights, kQueries);
  // Where the last two vectors overlap both hold the whole sum of their lanes.
  HWY_ALIGN float padded[kQueries * (kRecordDimsMax + kLanes)];
  const auto copy = [&](bool load) HWY_ATTR {
    for (size_t i = 0; i < kQueries; ++i) {
      for (size_t vec = 0; vec < split.vecs; ++vec) {
        float* whole = sums + i * shape.dims + split.Offset(vec);
        float* part = padded + i * split.Padded() + vec * kLanes;
        hn::StoreU(hn::LoadU(FloatTag(), load ? whole : part), FloatTag(), load ? part : whole);
      }
    }
  };
  copy(true);
  size_t vec = 0;
  for (; vec + kVecs <= split.vecs; vec += kVecs) {
    AddVectors<T, kQueries, kVecs>(shape, record, weights, rows, vec, padded);
  }
  for (; vec < split.vecs; ++vec) {
    AddVectors<T, kQueries, 1>(shape, record, weights, rows, vec, padded);
  }
  copy(false);
}

// Calls `group` for queries in even groups that fit the registers.
template <class T>
struct ByGroups {
  static void Scores(const RecordShape& shape, const std::byte* record, const float* q,
                     size_t queries, float* scores) {
    for (size_t done = 0, take = 0; done < queries; done += take) {
      take = GroupSize(queries - done, kGroupMax);
      const auto score = take == 1   ? ScoreGroup<T, 1>
                         : take == 2 ? ScoreGroup<T, 2>
                         : take == 3 ? ScoreGroup<T, 3>
                                     : ScoreGroup<T, kGroupMax>;
      score(shape, record, q + done * shape.dims, scores + done * shape.rows);
    }
  }
  static void Values(const RecordShape& shape, const std::byte* record, const float* weights,
                     size_t queries, float* sums) {
    for (size_t done = 0, take = 0; done < queries; done += take) {
      take = GroupSize(queries - done, kGroupMax);
      const auto add = take == 1   ? AddGroup<T, 1>
                       : take == 2 ? AddGroup<T, 2>
                       : take == 3 ? AddGroup<T, 3>
                                   : AddGroup<T, kGroupMax>;
      add(shape, record, weights + done * shape.rows, sums + done * shape.dims);
    }
  }
};
#endif  // KVASIR_VECTOR_TARGET

void ScoresTarget(const RecordShape& shape, const std::byte* record, const float* q,
                  uint32_t queries, float* scores) {
#if KVASIR_VECTOR_TARGET
  if (shape.dims >= kLanes && shape.type != RowType::kE4M3) {
    const auto score = shape.type == RowType::kF16    ? ByGroups<hwy::float16_t>::Scores
                       : shape.type == RowType::kBF16 ? ByGroups<hwy::bfloat16_t>::Scores
                                                      : ByGroups<float>::Scores;
    return score(shape, record, q, queries, scores);
  }
#endif
  rows::scalar::Scores(shape, record, q, queries, scores);
}

void ValuesTarget(const RecordShape& shape, const std::byte* record, const float* weights,
                  uint32_t queries, float* sums) {
#if KVASIR_VECTOR_TARGET
  if (shape.dims >= kLanes && shape.type != RowType::kE4M3) {
    const auto add = shape.type == RowType::kF16    ? ByGroups<hwy::float16_t>::Values
                     : shape.type == RowType::kBF16 ? ByGroups<hwy::bfloat16_t>::Values
                                                    : ByGroups<float>::Values;
    return add(shape, record, weights, queries, sums);
  }
#endif
  rows::scalar::AddValues(shape, record, weights, queries, sums);
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::rows {

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

}  // namespace kvasir::kernels::rows
#endif  // HWY_ONCE
