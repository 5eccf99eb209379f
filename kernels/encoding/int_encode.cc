// Encode: least and largest elements of a tile, then its codes.
#include <algorithm>
#include <cstring>

#include "kernels/encoding/int_layout.h"
#include "kernels/encoding/int_record.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/int_encode.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/encoding/int_pack-inl.h"
#include "kernels/encoding/transpose_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

HWY_NOINLINE void MakeKeyScales(const IntLayout& layout, const float* tile, size_t count,
                                ScaleTables& tables) {
  const FloatTag d;
  for (size_t dim = 0; dim < layout.dims; dim += kLanes) {
    FloatVec least = hn::LoadU(d, tile + dim);
    FloatVec most = least;
    for (size_t row = 1; row < count; ++row) {
      const FloatVec x = hn::LoadU(d, tile + row * layout.dims + dim);
      least = hn::Min(least, x);
      most = hn::Max(most, x);
    }
    tables.Set(dim, Scales(least, most, static_cast<float>(layout.levels)));
  }
}

using BlockTag = hn::FixedTag<float, 4>;
using BlockVec = hn::Vec<BlockTag>;

// Least and largest of the channels [dim, end) of a row, eight or more, in four lanes.
HWY_INLINE void RowLimits(const float* row, size_t dim, size_t end, BlockVec& least,
                          BlockVec& most) {
  const hn::FixedTag<float, 8> d;
  const BlockTag half;
  auto low = hn::LoadU(d, row + dim);
  auto high = low;
  for (dim += 8; dim < end; dim += 8) {
    const auto x = hn::LoadU(d, row + dim);
    low = hn::Min(low, x);
    high = hn::Max(high, x);
  }
  least = hn::Min(hn::LowerHalf(half, low), hn::UpperHalf(half, low));
  most = hn::Max(hn::LowerHalf(half, high), hn::UpperHalf(half, high));
}

HWY_NOINLINE void MakeValueScales(const IntLayout& layout, const float* tile, size_t group,
                                  ScaleTables& tables) {
  const BlockTag d4;
  const size_t dim = group * kIntGroupDims;
  const size_t end = std::min(dim + kIntGroupDims, layout.dims);
  HWY_ALIGN float least_of[kLanes];
  HWY_ALIGN float most_of[kLanes];
  for (size_t row = 0; row < layout.rows; row += kLanes) {
    for (size_t quad = 0; quad < kLanes; quad += 4) {
      BlockVec least_rows[4], most_rows[4], least[4], most[4];
      KVASIR_UNROLL
      for (size_t i = 0; i < 4; ++i) {
        RowLimits(tile + (row + quad + i) * layout.dims, dim, end, least_rows[i], most_rows[i]);
      }
      TransposeBlocks(d4, least_rows, least);
      TransposeBlocks(d4, most_rows, most);
      hn::Store(hn::Min(hn::Min(least[0], least[1]), hn::Min(least[2], least[3])), d4,
                least_of + quad);
      hn::Store(hn::Max(hn::Max(most[0], most[1]), hn::Max(most[2], most[3])), d4, most_of + quad);
    }
    const FloatTag d;
    tables.Set(group * layout.rows + row, Scales(hn::Load(d, least_of), hn::Load(d, most_of),
                                                 static_cast<float>(layout.levels)));
  }
}

#endif  // KVASIR_VECTOR_TARGET

void EncodeIntTarget(const RecordShape& shape, float* tile, size_t count, std::byte* record) {
#if KVASIR_VECTOR_TARGET
  const IntLayout layout(shape);
  ScaleTables tables;
  if (layout.key) {
    MakeKeyScales(layout, tile, count, tables);
    for (size_t row = count; row < layout.rows; ++row) {
      std::memcpy(tile + row * layout.dims, tables.zero, layout.dims * sizeof(float));
    }
  } else {
    std::fill(tile + count * layout.dims, tile + layout.rows * layout.dims, 0.0F);
    for (size_t group = 0; group < layout.groups; ++group) {
      MakeValueScales(layout, tile, group, tables);
    }
  }
  tables.Write(layout, record);
  Pack<float>(layout, reinterpret_cast<const std::byte*>(tile), tables, record + layout.CodesAt());
#else
  ints::scalar::Encode(shape, tile, count, record);
#endif
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::ints {

HWY_EXPORT(EncodeIntTarget);

void Encode(const RecordShape& shape, float* tile, size_t count, std::byte* record) {
  HWY_DYNAMIC_DISPATCH(EncodeIntTarget)(shape, tile, count, record);
}

}  // namespace kvasir::kernels::ints
#endif  // HWY_ONCE
