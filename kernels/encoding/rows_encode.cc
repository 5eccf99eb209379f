// Encode and Decode of rows as they were written.
#include <cstring>

#include "kernels/encoding/block_rows.h"
#include "kernels/encoding/rows_record.h"
#include "kernels/row_convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/rows_encode.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what it is compiled for.
#include "kernels/row_store-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET
template <class T>
void StoreTyped(RowType type, const float* from, size_t count, std::byte* to) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    StoreOne<T>(hn::LoadU(FloatTag(), from + i), to + i * sizeof(T));
  }
  for (; i < count; ++i) {
    StoreElement(type, to, i, from[i]);
  }
}

template <class T>
void LoadTyped(RowType type, const std::byte* from, size_t count, float* to) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    hn::StoreU(LoadRow<T>(from + i * sizeof(T)), FloatTag(), to + i);
  }
  for (; i < count; ++i) {
    to[i] = LoadElement(type, from, i);
  }
}
#endif  // KVASIR_VECTOR_TARGET

void StoreRowTarget(RowType type, const float* from, size_t count, std::byte* to) {
#if KVASIR_VECTOR_TARGET
  switch (type) {
    case RowType::kF16:
      return StoreTyped<hwy::float16_t>(type, from, count, to);
    case RowType::kBF16:
      return StoreTyped<hwy::bfloat16_t>(type, from, count, to);
    case RowType::kF32:
      return StoreTyped<float>(type, from, count, to);
    case RowType::kE4M3:
      break;
  }
#endif
  for (size_t i = 0; i < count; ++i) {
    StoreElement(type, to, i, from[i]);
  }
}

void LoadRowsTarget(RowType type, const std::byte* from, size_t count, float* to) {
#if KVASIR_VECTOR_TARGET
  switch (type) {
    case RowType::kF16:
      return LoadTyped<hwy::float16_t>(type, from, count, to);
    case RowType::kBF16:
      return LoadTyped<hwy::bfloat16_t>(type, from, count, to);
    case RowType::kF32:
      return LoadTyped<float>(type, from, count, to);
    case RowType::kE4M3:
      break;
  }
#endif
  for (size_t i = 0; i < count; ++i) {
    to[i] = LoadElement(type, from, i);
  }
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::rows {

HWY_EXPORT(StoreRowTarget);
HWY_EXPORT(LoadRowsTarget);

namespace {

using LoadRows = void (*)(RowType, uint32_t, std::span<const std::byte* const>, const RecordTurn&,
                          float*);
using StoreElements = void (*)(RowType, const float*, size_t, std::byte*);

void EncodeWith(LoadRows load, StoreElements store, const RecordShape& shape,
                std::span<const std::byte* const> sources, const RecordTurn& turn,
                std::byte* record) {
  const size_t row_bytes = shape.dims * ElementBytes(shape.type);
  for (size_t row = 0; row < sources.size(); ++row) {
    std::byte* to = record + row * row_bytes;
    if (turn.deltas.empty() || turn.deltas[row] == 0) {
      std::memcpy(to, sources[row], row_bytes);
      continue;
    }
    float turned[kRecordDimsMax];
    load(shape.type, shape.dims, sources.subspan(row, 1),
         {.rope = turn.rope, .deltas = turn.deltas.subspan(row, 1)}, turned);
    store(shape.type, turned, shape.dims, to);
  }
  std::memset(record + sources.size() * row_bytes, 0, (shape.rows - sources.size()) * row_bytes);
}

void StoreRow(RowType type, const float* from, size_t count, std::byte* to) {
  HWY_DYNAMIC_DISPATCH(StoreRowTarget)(type, from, count, to);
}

void StoreRowPlainly(RowType type, const float* from, size_t count, std::byte* to) {
  for (size_t i = 0; i < count; ++i) {
    StoreElement(type, to, i, from[i]);
  }
}

}  // namespace

uint64_t Bytes(const RecordShape& shape) {
  return uint64_t{shape.rows} * shape.dims * ElementBytes(shape.type);
}

void Encode(const RecordShape& shape, std::span<const std::byte* const> sources,
            const RecordTurn& turn, std::byte* record) {
  EncodeWith(LoadBlockRows, StoreRow, shape, sources, turn, record);
}

void Decode(const RecordShape& shape, const std::byte* record, float* to) {
  HWY_DYNAMIC_DISPATCH(LoadRowsTarget)(shape.type, record, size_t{shape.rows} * shape.dims, to);
}

namespace scalar {

void Encode(const RecordShape& shape, std::span<const std::byte* const> sources,
            const RecordTurn& turn, std::byte* record) {
  EncodeWith(kernels::scalar::LoadBlockRows, StoreRowPlainly, shape, sources, turn, record);
}

void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores) {
  for (size_t query = 0; query < queries; ++query) {
    for (size_t row = 0; row < shape.rows; ++row) {
      float score = 0;
      for (size_t dim = 0; dim < shape.dims; ++dim) {
        score +=
            q[query * shape.dims + dim] * LoadElement(shape.type, record, row * shape.dims + dim);
      }
      scores[query * shape.rows + row] = score;
    }
  }
}

void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums) {
  for (size_t query = 0; query < queries; ++query) {
    for (size_t row = 0; row < shape.rows; ++row) {
      const float weight = weights[query * shape.rows + row];
      for (size_t dim = 0; dim < shape.dims && weight != 0; ++dim) {
        sums[query * shape.dims + dim] +=
            weight * LoadElement(shape.type, record, row * shape.dims + dim);
      }
    }
  }
}

void Decode(const RecordShape& shape, const std::byte* record, float* to) {
  for (size_t i = 0; i < size_t{shape.rows} * shape.dims; ++i) {
    to[i] = LoadElement(shape.type, record, i);
  }
}

}  // namespace scalar
}  // namespace kvasir::kernels::rows
#endif  // HWY_ONCE
