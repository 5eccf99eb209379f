// AddRotatedRows: codes become levels by a table in a register, a few queries at a time.
#include <algorithm>
#include <cstring>

#include "kernels/encoding/row_code.h"
#include "kernels/encoding/row_code_parts.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/row_code_add.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what it is compiled for.
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

using IndexTag = hn::RebindToSigned<FloatTag>;

constexpr size_t kPieceRows = 64;
constexpr size_t kQueriesMax = 4;

// `value` in the lanes whose bit at `bits` is set.
HWY_INLINE hn::Vec<IndexTag> Where(const std::byte* bits, int value) {
  const IndexTag d;
  uint16_t word = 0;
  std::memcpy(&word, bits, kLanes / 8);
  const auto lane = hn::Shl(hn::Set(d, 1), hn::Iota(d, 0));
  return hn::IfThenElseZero(hn::Ne(hn::And(hn::Set(d, int{word}), lane), hn::Zero(d)),
                            hn::Set(d, value));
}

// turned[query][dim ..] += weights[query][row] * level, for one vector of all rows.
template <size_t kQueries>
HWY_INLINE void AddVector(const RotatedRow& shape, std::span<const std::byte* const> rows,
                          FloatVec levels, const float* weights, size_t dim, float* turned) {
  const FloatTag d;
  FloatVec sums[kQueries];
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    sums[i] = hn::LoadU(d, turned + i * shape.dims + dim);
  }
  for (size_t row = 0; row < rows.size(); ++row) {
    const std::byte* planes = rows[row] + 1 + dim / 8;
    auto index = hn::Or(Where(planes, 1), Where(planes + shape.dims / 8, 2));
    if (shape.bits == 3) {
      index = hn::Or(index, Where(planes + shape.dims / 4, 4));
    }
    const FloatVec level = hn::TableLookupLanes(levels, hn::IndicesFromVec(d, index));
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries; ++i) {
      sums[i] = hn::MulAdd(hn::Set(d, weights[i * kPieceRows + row]), level, sums[i]);
    }
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    hn::StoreU(sums[i], d, turned + i * shape.dims + dim);
  }
}

template <size_t kQueries>
void AddGroup(const RotatedRow& shape, std::span<const std::byte* const> rows, const float* weights,
              float* sums) {
  const FloatTag d;
  HWY_ALIGN float table[kLanes] = {};
  std::copy_n(RotatedLevels(shape), size_t{1} << shape.bits, table);
  const FloatVec levels = hn::Load(d, table);
  float turned[kQueries * kRotatedDimsMax] = {};
  for (size_t begin = 0; begin < rows.size(); begin += kPieceRows) {
    const auto piece = rows.subspan(begin, std::min(kPieceRows, rows.size() - begin));
    float scaled[kQueries * kPieceRows];
    for (size_t row = 0; row < piece.size(); ++row) {
      const float norm = RotatedNorm(piece[row]);
      for (size_t i = 0; i < kQueries; ++i) {
        scaled[i * kPieceRows + row] = weights[i * rows.size() + begin + row] * norm;
      }
    }
    for (size_t dim = 0; dim < shape.dims; dim += kLanes) {
      AddVector<kQueries>(shape, piece, levels, scaled, dim, turned);
    }
  }
  for (size_t i = 0; i < kQueries; ++i) {
    AddTurnedBack(turned + i * shape.dims, shape.dims, sums + i * shape.dims);
  }
}
#endif  // KVASIR_VECTOR_TARGET

void AddRowsTarget(const RotatedRow& shape, std::span<const std::byte* const> rows,
                   const float* weights, uint32_t queries, float* sums) {
#if KVASIR_VECTOR_TARGET
  for (size_t done = 0; done < queries;) {
    const size_t take = std::min(kQueriesMax, queries - done);
    const auto add = take == 1   ? AddGroup<1>
                     : take == 2 ? AddGroup<2>
                     : take == 3 ? AddGroup<3>
                                 : AddGroup<kQueriesMax>;
    add(shape, rows, weights + done * rows.size(), sums + done * shape.dims);
    done += take;
  }
#else
  scalar::AddRotatedRows(shape, rows, weights, queries, sums);
#endif
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(AddRowsTarget);

void AddRotatedRows(const RotatedRow& shape, std::span<const std::byte* const> rows,
                    const float* weights, uint32_t queries, float* sums) {
  HWY_DYNAMIC_DISPATCH(AddRowsTarget)(shape, rows, weights, queries, sums);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
