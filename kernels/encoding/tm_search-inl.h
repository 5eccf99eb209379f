// The plane words of a channel. Included once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_ENCODING_TM_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ENCODING_TM_SEARCH_INL_H_
#undef KVASIR_KERNELS_ENCODING_TM_SEARCH_INL_H_
#else
#define KVASIR_KERNELS_ENCODING_TM_SEARCH_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "kernels/encoding/tm_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if KVASIR_VECTOR_TARGET

// Borders of kPlanes planes times a scale, as a search by halves needs them: one, one of two, then
// tables.
template <uint32_t kPlanes, class D>
struct Borders {
  HWY_INLINE Borders(D d, float scale) {
    const auto by = hn::Set(d, scale);
    const float* of = kBoundaries.of[kPlanes];
    one = hn::Mul(hn::Set(d, of[1]), by);
    below = hn::Mul(hn::Set(d, of[2]), by);
    above = hn::Mul(hn::Set(d, of[3]), by);
    Scale(LoadTable<2>(d, kBoundaries.tables[kPlanes][0]), by, four);
    Scale(LoadTable<3>(d, kBoundaries.tables[kPlanes][1]), by, eight);
    Scale(LoadTable<4>(d, kBoundaries.tables[kPlanes][2]), by, sixteen);
  }
  template <class T>
  static HWY_INLINE void Scale(const T& from, hn::Vec<D> by, T& to) {
    KVASIR_UNROLL
    for (size_t i = 0; i < T::kVecs; ++i) {
      to.vecs[i] = hn::Mul(from.vecs[i], by);
    }
  }
  hn::Vec<D> one, below, above;
  Table<2, D> four;
  Table<3, D> eight;
  Table<4, D> sixteen;
};

// Words of kPlanes planes of kRows mixed rows at y. Every bit of a code is one comparison, so
// masks are plane words as they come: no code is ever put together.
template <uint32_t kRows, uint32_t kPlanes>
HWY_INLINE void EncodeChannel(const float* y, float scale, std::byte* words) {
  using D = kernels::HWY_NAMESPACE::FloatTag;
  const D d;
  const hn::RebindToSigned<D> di;
  constexpr size_t kStep = hn::MaxLanes(d);
  const Borders<kPlanes, D> borders(d, scale);
  for (size_t row = 0; row < kRows; row += kStep) {
    const auto value = hn::Load(d, y + row);
    const auto size = hn::Abs(value);
    // Levels mirror each other: below zero the search's answers are too.
    const auto mirrored = hn::Le(value, hn::Zero(d));
    auto* to = reinterpret_cast<uint8_t*>(words) + row / 8;
    const auto store = [&](size_t plane, hn::Mask<D> bits)
                           HWY_ATTR { hn::StoreMaskBits(d, bits, to + plane * (kRows / 8)); };
    store(kPlanes - 1, hn::Gt(value, hn::Zero(d)));
    if constexpr (kPlanes >= 2) {
      const auto first = hn::Gt(size, borders.one);
      store(kPlanes - 2, hn::Xor(first, mirrored));
      if constexpr (kPlanes >= 3) {
        const auto second = hn::Gt(size, hn::IfThenElse(first, borders.above, borders.below));
        store(kPlanes - 3, hn::Xor(second, mirrored));
        const auto take = [&](auto node, hn::Mask<D> more) HWY_ATTR {
          return hn::Sub(hn::Add(node, node), hn::VecFromMask(di, hn::RebindMask(di, more)));
        };
        auto node = take(take(hn::Zero(di), first), second);
        if constexpr (kPlanes >= 4) {
          const auto third = hn::Gt(size, Lookup(d, borders.four, node));
          store(kPlanes - 4, hn::Xor(third, mirrored));
          node = take(node, third);
          if constexpr (kPlanes >= 5) {
            const auto fourth = hn::Gt(size, Lookup(d, borders.eight, node));
            store(kPlanes - 5, hn::Xor(fourth, mirrored));
            node = take(node, fourth);
            if constexpr (kPlanes >= 6) {
              store(0, hn::Xor(hn::Gt(size, Lookup(d, borders.sixteen, node)), mirrored));
            }
          }
        }
      }
    }
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ENCODING_TM_SEARCH_INL_H_
