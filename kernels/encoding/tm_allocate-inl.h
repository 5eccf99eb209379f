// Which channel gets how many planes. Included once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_ENCODING_TM_ALLOCATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ENCODING_TM_ALLOCATE_INL_H_
#undef KVASIR_KERNELS_ENCODING_TM_ALLOCATE_INL_H_
#else
#define KVASIR_KERNELS_ENCODING_TM_ALLOCATE_INL_H_
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/encoding/tm_format.h"
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if KVASIR_VECTOR_TARGET

// How many of the gains of all channels and planes are at least `least`. gains: [dims], zeros up to
// a whole vector.
HWY_INLINE uint32_t CountGains(const float* gains, uint32_t dims, float least) {
  using kernels::HWY_NAMESPACE::FloatTag;
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const auto border = hn::Set(d, least);
  auto count = hn::Zero(di);
  for (uint32_t c = 0; c < dims; c += static_cast<uint32_t>(hn::MaxLanes(d))) {
    const auto gain = hn::Load(d, gains + c);
    KVASIR_UNROLL
    for (size_t n = 0; n < kCodePlanesMax; ++n) {
      const auto reached = hn::Ge(hn::Mul(gain, hn::Set(d, kGains[n])), border);
      count = hn::Sub(count, hn::VecFromMask(di, hn::RebindMask(di, reached)));
    }
  }
  return static_cast<uint32_t>(hn::GetLane(hn::SumOfLanes(di, count)));
}

// planes[c] as the greedy rule gives them: the largest gains first, of equal ones those of lower
// channels. The gains of a channel fall with each plane, so the planes given are the
// shape.code_planes largest gains of all: their border is searched by halves, in the order of bits
// that floats >= 0 have.
HWY_INLINE void Allocate(const RecordShape& shape, const float* gains, uint8_t* planes) {
  // At least code_planes gains reach `low`, fewer reach `high`.
  uint32_t low = 0;
  uint32_t high = std::bit_cast<uint32_t>(std::numeric_limits<float>::infinity());
  uint32_t reached = shape.dims * kCodePlanesMax;
  while (reached != shape.code_planes && high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const uint32_t count = CountGains(gains, shape.dims, std::bit_cast<float>(middle));
    if (count >= shape.code_planes) {
      low = middle;
      reached = count;
    } else {
      high = middle;
    }
  }
  const auto border = std::bit_cast<float>(low);
  // Of the gains that equal the border the last channels' ones are too many.
  uint32_t excess = reached - shape.code_planes;
  for (uint32_t c = shape.dims; c-- > 0;) {
    uint32_t count = 0;
    for (const float gain : kGains) {
      count += gains[c] * gain >= border ? 1 : 0;
    }
    while (excess > 0 && count > 0 && gains[c] * kGains[count - 1] == border) {
      --count;
      --excess;
    }
    planes[c] = static_cast<uint8_t>(count);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ENCODING_TM_ALLOCATE_INL_H_
