// Four vectors turned on their side, within 128 bits. Included once per Highway target, hence the
// toggled guard.
#if defined(KVASIR_KERNELS_ENCODING_TRANSPOSE_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ENCODING_TRANSPOSE_BLOCKS_INL_H_
#undef KVASIR_KERNELS_ENCODING_TRANSPOSE_BLOCKS_INL_H_
#else
#define KVASIR_KERNELS_ENCODING_TRANSPOSE_BLOCKS_INL_H_
#endif

#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if KVASIR_VECTOR_TARGET

// Lane i of blocks[j] and of its three followers, by blocks: the four vectors' lanes 4 * block + j.
template <class D>
HWY_INLINE void TransposeBlocks(D d, const hn::Vec<D>* rows, hn::Vec<D>* blocks) {
  const hn::Repartition<double, D> dd;
  const auto low01 = hn::BitCast(dd, hn::InterleaveLower(d, rows[0], rows[1]));
  const auto low23 = hn::BitCast(dd, hn::InterleaveLower(d, rows[2], rows[3]));
  const auto high01 = hn::BitCast(dd, hn::InterleaveUpper(d, rows[0], rows[1]));
  const auto high23 = hn::BitCast(dd, hn::InterleaveUpper(d, rows[2], rows[3]));
  blocks[0] = hn::BitCast(d, hn::InterleaveLower(dd, low01, low23));
  blocks[1] = hn::BitCast(d, hn::InterleaveUpper(dd, low01, low23));
  blocks[2] = hn::BitCast(d, hn::InterleaveLower(dd, high01, high23));
  blocks[3] = hn::BitCast(d, hn::InterleaveUpper(dd, high01, high23));
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ENCODING_TRANSPOSE_BLOCKS_INL_H_
