// Eight vectors turned on their side. Included once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_ENCODING_TM_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ENCODING_TM_TRANSPOSE_INL_H_
#undef KVASIR_KERNELS_ENCODING_TM_TRANSPOSE_INL_H_
#else
#define KVASIR_KERNELS_ENCODING_TM_TRANSPOSE_INL_H_
#endif

#include <cstddef>

#include "kernels/encoding/transpose_blocks-inl.h"
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if KVASIR_VECTOR_TARGET

// Lane i of the eight vectors goes to the eight floats at to + i * stride.
template <class D>
HWY_INLINE void StoreTransposed(D d, const hn::Vec<D> (&v)[8], float* to, size_t stride) {
  const hn::CappedTag<float, 8> eight;
  hn::Vec<D> first[4], second[4];
  kernels::HWY_NAMESPACE::TransposeBlocks(d, v, first);
  kernels::HWY_NAMESPACE::TransposeBlocks(d, v + 4, second);
  KVASIR_UNROLL
  for (size_t j = 0; j < 4; ++j) {
#if HWY_TARGET <= HWY_AVX3
    if constexpr (hn::MaxLanes(D()) == 16) {
      const auto a = _mm512_castps_pd(first[j].raw), b = _mm512_castps_pd(second[j].raw);
      const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
      const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
      const hn::Vec<D> lower = {_mm512_castpd_ps(_mm512_permutex2var_pd(a, low, b))};
      const hn::Vec<D> upper = {_mm512_castpd_ps(_mm512_permutex2var_pd(a, high, b))};
      hn::StoreU(hn::LowerHalf(eight, lower), eight, to + j * stride);
      hn::StoreU(hn::UpperHalf(eight, lower), eight, to + (j + 4) * stride);
      hn::StoreU(hn::LowerHalf(eight, upper), eight, to + (j + 8) * stride);
      hn::StoreU(hn::UpperHalf(eight, upper), eight, to + (j + 12) * stride);
    }
#endif
    if constexpr (hn::MaxLanes(D()) == 8) {
      hn::StoreU(hn::ConcatLowerLower(d, second[j], first[j]), eight, to + j * stride);
      hn::StoreU(hn::ConcatUpperUpper(d, second[j], first[j]), eight, to + (j + 4) * stride);
    }
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ENCODING_TM_TRANSPOSE_INL_H_
