// Decode: rows as floats, for prefill and for copies.
#include <algorithm>
#include <cstring>

#include "kernels/encoding/int_layout.h"
#include "kernels/encoding/int_record.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/int_decode.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what it is compiled for.
#include "kernels/encoding/int_code-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Scale and zero of one channel of keys, or of one row of values, in every lane.
struct ScaleVecs {
  HWY_INLINE void Set(const IntLayout& layout, const std::byte* record, size_t row, size_t dim) {
    const FloatTag d;
    const size_t index = layout.ScaleOf(row, dim);
    scale = hn::Set(d, F16ToFloat(LoadHalf(record, index)));
    zero = hn::Set(d, F16ToFloat(LoadHalf(record + layout.ZerosAt(), index)));
  }
  template <int kBits>
  HWY_INLINE FloatVec Decode(WordVec words) const {
    return hn::MulAdd(LowCodes<kBits>(words), scale, zero);
  }
  FloatVec scale, zero;
};

// Four channels of kLanes rows at a time become four elements of each row.
template <int kBits>
HWY_NOINLINE void DecodeKeys(const IntLayout& layout, const std::byte* record, float* rows) {
  HWY_ALIGN float quads[4 * kLanes];
  const std::byte* codes = record + layout.CodesAt();
  for (size_t dim = 0; dim < layout.dims; dim += 4) {
    ScaleVecs scales[4];
    KVASIR_UNROLL
    for (size_t i = 0; i < 4; ++i) {
      scales[i].Set(layout, record, 0, dim + i);
    }
    for (size_t row = 0; row < layout.rows; row += kLanes) {
      FloatVec x[4];
      KVASIR_UNROLL
      for (size_t i = 0; i < 4; ++i) {
        const WordVec words = LoadWords(codes + layout.WordOf(row, dim + i) * sizeof(uint32_t));
        const auto shift = static_cast<int>(layout.ShiftOf(row, dim + i));
        x[i] = scales[i].template Decode<kBits>(hn::ShiftRightSame(words, shift));
      }
      hn::StoreInterleaved4(x[0], x[1], x[2], x[3], FloatTag(), quads);
      for (size_t i = 0; i < kLanes; ++i) {
        std::memcpy(rows + (row + i) * layout.dims + dim, quads + i * 4, 4 * sizeof(float));
      }
    }
  }
}

template <int kBits>
HWY_NOINLINE void DecodeValues(const IntLayout& layout, const std::byte* record, float* rows) {
  constexpr size_t kPerWord = 32 / kBits;
  const std::byte* codes = record + layout.CodesAt();
  for (size_t row = 0; row < layout.rows; row += kPerWord) {
    for (size_t dim = 0, end = 0; dim < layout.dims; dim = end) {
      end = std::min(dim + kIntGroupDims, layout.dims);
      ScaleVecs scales[kPerWord];
      KVASIR_UNROLL
      for (size_t i = 0; i < kPerWord; ++i) {
        scales[i].Set(layout, record, row + i, dim);
      }
      for (; dim < end; dim += kLanes) {
        WordVec words = LoadWordsPart(codes, dim, layout.dims);
        KVASIR_UNROLL
        for (size_t i = 0; i < kPerWord; ++i) {
          StorePart(scales[i].template Decode<kBits>(words), rows + (row + i) * layout.dims, dim,
                    layout.dims);
          words = hn::ShiftRight<kBits>(words);
        }
      }
    }
    codes += layout.dims * sizeof(uint32_t);
  }
}
#endif  // KVASIR_VECTOR_TARGET

void DecodeTarget(const RecordShape& shape, const std::byte* record, float* rows) {
#if KVASIR_VECTOR_TARGET
  const IntLayout layout(shape);
  const auto decode = layout.key ? (layout.bits == 8 ? DecodeKeys<8> : DecodeKeys<4>)
                                 : (layout.bits == 8 ? DecodeValues<8> : DecodeValues<4>);
  decode(layout, record, rows);
#else
  ints::scalar::Decode(shape, record, rows);
#endif
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::ints {

HWY_EXPORT(DecodeTarget);

void Decode(const RecordShape& shape, const std::byte* record, float* rows) {
  HWY_DYNAMIC_DISPATCH(DecodeTarget)(shape, record, rows);
}

}  // namespace kvasir::kernels::ints
#endif  // HWY_ONCE
