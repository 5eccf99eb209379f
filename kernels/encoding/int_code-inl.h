// Vectors of 8 or 4 bit codes, scales and zeros. Included once per Highway target, hence the
// toggled guard.
#if defined(KVASIR_KERNELS_ENCODING_INT_CODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ENCODING_INT_CODE_INL_H_
#undef KVASIR_KERNELS_ENCODING_INT_CODE_INL_H_
#else
#define KVASIR_KERNELS_ENCODING_INT_CODE_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

using WordTag = hn::RebindToUnsigned<FloatTag>;
using WordVec = hn::Vec<WordTag>;
using HalfFloatTag = hn::Half<FloatTag>;

// Dimensions are multiples of 8: at the end of a row half a vector of 16 may be left.
HWY_INLINE bool IsWhole(size_t dim, size_t dims) { return kLanes == 8 || dim + kLanes <= dims; }

// The floats from `dim` on of a row of `dims`; zeros behind its end.
HWY_INLINE FloatVec LoadPart(const float* row, size_t dim, size_t dims) {
  const FloatTag d;
  if (IsWhole(dim, dims)) {
    return hn::LoadU(d, row + dim);
  }
  return hn::ZeroExtendVector(d, hn::LoadU(HalfFloatTag(), row + dim));
}

HWY_INLINE void StorePart(FloatVec value, float* row, size_t dim, size_t dims) {
  if (IsWhole(dim, dims)) {
    hn::StoreU(value, FloatTag(), row + dim);
  } else {
    hn::StoreU(hn::LowerHalf(HalfFloatTag(), value), HalfFloatTag(), row + dim);
  }
}

HWY_INLINE WordVec LoadWords(const std::byte* at) {
  return hn::LoadU(WordTag(), reinterpret_cast<const uint32_t*>(at));
}

// The words from `dim` on of a row of `dims`; zeros behind its end.
HWY_INLINE WordVec LoadWordsPart(const std::byte* row, size_t dim, size_t dims) {
  const std::byte* at = row + dim * sizeof(uint32_t);
  if (IsWhole(dim, dims)) {
    return LoadWords(at);
  }
  const hn::Half<WordTag> half;
  return hn::ZeroExtendVector(WordTag(), hn::LoadU(half, reinterpret_cast<const uint32_t*>(at)));
}

// The lowest code of every word as a float.
template <int kBits>
HWY_INLINE FloatVec LowCodes(WordVec words) {
  const WordVec codes = hn::And(words, hn::Set(WordTag(), (1U << kBits) - 1));
  return hn::ConvertTo(FloatTag(), hn::BitCast(hn::RebindToSigned<FloatTag>(), codes));
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ENCODING_INT_CODE_INL_H_
