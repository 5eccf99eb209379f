// EncodeHalves: rows of f16 that are not turned stay 16 bits wide until their codes are made. Which
// of two is less is asked of their bits, ordered as integers.
#include <algorithm>
#include <cstring>

#include "kernels/encoding/int_layout.h"
#include "kernels/encoding/int_record.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/int_encode_halves.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what it is compiled for.
#include "kernels/copy_row-inl.h"
#include "kernels/encoding/int_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

constexpr size_t kOrderLanes = 16;
using OrderTag = hn::FixedTag<int16_t, kOrderLanes>;
using OrderVec = hn::Vec<OrderTag>;

// The bits of f16 numbers as integers of the same order, and back. -0 comes before 0.
template <class D>
HWY_INLINE hn::Vec<D> Ordered(D d, hn::Vec<D> bits) {
  return hn::Xor(bits, hn::And(hn::ShiftRight<15>(bits), hn::Set(d, 0x7FFF)));
}

// Integers of the largest and the least finite number; beyond are infinities and what is no number.
constexpr int16_t kOrderMost = 0x7BFF;
constexpr int16_t kOrderLeast = -0x7C00;

// Rows requested ahead of the one that is read.
constexpr size_t kRowsAhead = 16;

// Where the row to be encoded after this one lies, as seen from it: as a rule a block is followed
// by the next one, and where rows are scattered by the next kv head of the same row. A guess: what
// is requested is never looked at here.
HWY_INLINE size_t ToNextRow(std::span<const std::byte* const> sources, size_t row_bytes) {
  const auto at = [&](size_t row) { return reinterpret_cast<uintptr_t>(sources[row]); };
  const size_t count = sources.size();
  const uintptr_t step = at(1) - at(0);
  const bool even = at(1) > at(0) && at(count - 1) - at(0) == step * (count - 1);
  return even ? step * count : row_bytes;
}

struct Halves {
  HWY_INLINE void Prefetch(size_t row) const {
    const size_t bytes = dims * sizeof(int16_t);
    if (row + kRowsAhead < sources.size()) {
      PrefetchNear(sources[row + kRowsAhead], bytes);
    }
    PrefetchRow(sources[row] + to_next, bytes);
  }
  // Copies 16 elements to the tile.
  HWY_INLINE OrderVec Take(size_t row, size_t dim) const {
    const OrderTag d;
    const auto* from = reinterpret_cast<const int16_t*>(sources[row] + dim * sizeof(int16_t));
    const OrderVec bits = hn::LoadU(d, from);
    hn::StoreU(bits, d, reinterpret_cast<int16_t*>(tile + (row * dims + dim) * sizeof(int16_t)));
    return Ordered(d, bits);
  }
  std::span<const std::byte* const> sources;
  size_t dims;
  std::byte* tile;
  size_t to_next;
};

// Least and most of every scale's elements, ordered.
struct Limits {
  HWY_INLINE FloatVec Load(const int16_t* from) const {
    const hn::Rebind<int16_t, FloatTag> d;
    return FromHalf(hn::BitCast(HalfBitsTag(), Ordered(d, hn::LoadU(d, from))));
  }
  bool AreFinite(size_t count) const {
    int16_t low = 0;
    int16_t high = 0;
    for (size_t i = 0; i < count; ++i) {
      low = std::min(low, least[i]);
      high = std::max(high, most[i]);
    }
    return low >= kOrderLeast && high <= kOrderMost;
  }
  void MakeScales(const IntLayout& layout, size_t count, ScaleTables& tables) const {
    for (size_t i = 0; i < count; i += kLanes) {
      tables.Set(i, Scales(Load(least + i), Load(most + i), static_cast<float>(layout.levels)));
    }
  }
  int16_t least[kRecordDimsMax];
  int16_t most[kRecordDimsMax];
};

// Least and most of 16 * kVecs channels from `dim` on.
template <size_t kVecs>
HWY_INLINE void KeyLimits(const Halves& rows, size_t dim, Limits& limits) {
  const OrderTag d;
  OrderVec least[kVecs], most[kVecs];
  KVASIR_UNROLL
  for (size_t i = 0; i < kVecs; ++i) {
    least[i] = most[i] = rows.Take(0, dim + i * kOrderLanes);
  }
  for (size_t row = 1; row < rows.sources.size(); ++row) {
    if (dim == 0) {
      rows.Prefetch(row);
    }
    KVASIR_UNROLL
    for (size_t i = 0; i < kVecs; ++i) {
      const OrderVec x = rows.Take(row, dim + i * kOrderLanes);
      least[i] = hn::Min(least[i], x);
      most[i] = hn::Max(most[i], x);
    }
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kVecs; ++i) {
    hn::StoreU(least[i], d, limits.least + dim + i * kOrderLanes);
    hn::StoreU(most[i], d, limits.most + dim + i * kOrderLanes);
  }
}

// Least of the lanes of both, in every second lane of each block, by lanes of type T.
template <class T>
HWY_INLINE OrderVec LeastOfPairs(OrderVec a, OrderVec b) {
  const OrderTag d;
  const hn::Repartition<T, OrderTag> wide;
  const auto x = hn::BitCast(wide, a);
  const auto y = hn::BitCast(wide, b);
  return hn::Min(hn::BitCast(d, hn::InterleaveLower(wide, x, y)),
                 hn::BitCast(d, hn::InterleaveUpper(wide, x, y)));
}

// The least of a row in its lower block, what the most is without its bits in the upper one.
HWY_INLINE OrderVec RowLimits(const Halves& rows, size_t row, size_t dim, size_t end) {
  const OrderTag d;
  OrderVec least = rows.Take(row, dim);
  OrderVec most = least;
  for (dim += kOrderLanes; dim < end; dim += kOrderLanes) {
    const OrderVec x = rows.Take(row, dim);
    least = hn::Min(least, x);
    most = hn::Max(most, x);
  }
  const OrderVec flipped = hn::Not(most);
  return hn::Min(hn::ConcatLowerLower(d, flipped, least), hn::ConcatUpperUpper(d, flipped, least));
}

// Least and most of the channels [dim, end) of 8 rows.
HWY_INLINE void ValueLimits(const Halves& rows, size_t row, size_t dim, size_t end, int16_t* least,
                            int16_t* most) {
  OrderVec of[8];
  KVASIR_UNROLL
  for (size_t i = 0; i < 8; ++i) {
    if (dim == 0) {
      rows.Prefetch(row + i);
    }
    of[i] = RowLimits(rows, row + i, dim, end);
  }
  const OrderVec ab = LeastOfPairs<int16_t>(of[0], of[1]);
  const OrderVec cd = LeastOfPairs<int16_t>(of[2], of[3]);
  const OrderVec ef = LeastOfPairs<int16_t>(of[4], of[5]);
  const OrderVec gh = LeastOfPairs<int16_t>(of[6], of[7]);
  const OrderVec all =
      LeastOfPairs<int64_t>(LeastOfPairs<int32_t>(ab, cd), LeastOfPairs<int32_t>(ef, gh));
  const hn::Half<OrderTag> half;
  hn::StoreU(hn::LowerHalf(half, all), half, least);
  hn::StoreU(hn::Not(hn::UpperHalf(half, all)), half, most);
}
#endif  // KVASIR_VECTOR_TARGET

bool EncodeHalvesTarget([[maybe_unused]] const RecordShape& shape,
                        [[maybe_unused]] std::span<const std::byte* const> sources,
                        [[maybe_unused]] std::byte* tile, [[maybe_unused]] std::byte* record) {
#if KVASIR_VECTOR_TARGET
  const IntLayout layout(shape);
  if (layout.dims % kOrderLanes != 0 || sources.size() != layout.rows) {
    return false;
  }
  const Halves rows = {.sources = sources,
                       .dims = layout.dims,
                       .tile = tile,
                       .to_next = ToNextRow(sources, layout.dims * sizeof(int16_t))};
  Limits limits;
  if (layout.key) {
    constexpr size_t kVecs = 4;
    size_t dim = 0;
    for (; dim + kVecs * kOrderLanes <= layout.dims; dim += kVecs * kOrderLanes) {
      KeyLimits<kVecs>(rows, dim, limits);
    }
    for (; dim < layout.dims; dim += kOrderLanes) {
      KeyLimits<1>(rows, dim, limits);
    }
  } else {
    for (size_t group = 0; group < layout.groups; ++group) {
      const size_t dim = group * kIntGroupDims;
      for (size_t row = 0; row < layout.rows; row += 8) {
        const size_t index = group * layout.rows + row;
        ValueLimits(rows, row, dim, std::min(dim + kIntGroupDims, layout.dims),
                    limits.least + index, limits.most + index);
      }
    }
  }
  if (!limits.AreFinite(layout.scales)) {
    return false;
  }
  ScaleTables tables;
  limits.MakeScales(layout, layout.scales, tables);
  tables.Write(layout, record);
  Pack<hwy::float16_t>(layout, tile, tables, record + layout.CodesAt());
  return true;
#else
  return false;
#endif
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::ints {

HWY_EXPORT(EncodeHalvesTarget);

bool EncodeHalves(const RecordShape& shape, std::span<const std::byte* const> sources,
                  std::byte* tile, std::byte* record) {
  return HWY_DYNAMIC_DISPATCH(EncodeHalvesTarget)(shape, sources, tile, record);
}

}  // namespace kvasir::kernels::ints
#endif  // HWY_ONCE
