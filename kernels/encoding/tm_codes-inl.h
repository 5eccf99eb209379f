// Codes of a channel as vectors. Included once per Highway target, hence the toggled guard.
//
// The codes of up to 64 tokens are the bytes of one vector: a plane word is a mask of its lanes. As
// words of four bytes the same vector holds four tokens a lane, taken one by one with a shift:
// group j of lane i is token 4 * i + j. What is computed from codes stays in this order, since a
// Hadamard transform does not mind by which bits of its index it is taken; results are interleaved
// at the end.
#if defined(KVASIR_KERNELS_ENCODING_TM_CODES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ENCODING_TM_CODES_INL_H_
#undef KVASIR_KERNELS_ENCODING_TM_CODES_INL_H_
#else
#define KVASIR_KERNELS_ENCODING_TM_CODES_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/encoding/tm_format.h"
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if KVASIR_VECTOR_TARGET

using kvasir::kernels::HWY_NAMESPACE::kLanes;
using EightTag = hn::CappedTag<float, 8>;

// Tokens of one vector of codes, and how many vectors a block takes.
template <uint32_t kRows>
constexpr size_t kTokens = std::min<size_t>(kRows, kLanes * 4);
template <uint32_t kRows>
constexpr size_t kParts = kRows / kTokens<kRows>;
template <uint32_t kRows>
using CodeTag = hn::CappedTag<uint8_t, kTokens<kRows>>;
template <uint32_t kRows>
using GroupTag = hn::CappedTag<float, kTokens<kRows> / 4>;

// 2^kBits numbers in registers. Index bits from kBits up to the byte's end must be zero where they
// are fewer than those of a register; those behind the byte do not matter.
template <uint32_t kBits, class D>
struct Table {
  static constexpr size_t kVecs = std::max<size_t>(1, (size_t{1} << kBits) / hn::MaxLanes(D()));
  hn::Vec<D> vecs[kVecs];
};

template <uint32_t kBits, class D>
HWY_INLINE Table<kBits, D> LoadTable(D d, const float* from) {
  Table<kBits, D> table;
  KVASIR_UNROLL
  for (size_t i = 0; i < table.kVecs; ++i) {
    table.vecs[i] = hn::Load(d, from + i * hn::MaxLanes(d));
  }
  return table;
}

// One of two by bit kBit of the index.
template <uint32_t kBit, class D, class I>
HWY_INLINE hn::Vec<D> PickByBit(D d, I index, hn::Vec<D> clear, hn::Vec<D> set) {
  const auto sign = hn::BitCast(d, hn::ShiftLeft<31 - kBit>(index));
  return hn::IfNegativeThenElse(sign, set, clear);
}

template <uint32_t kBits, class D, class I>
HWY_INLINE hn::Vec<D> Lookup(D d, const Table<kBits, D>& table, I index) {
#if HWY_TARGET <= HWY_AVX3
  if constexpr (hn::MaxLanes(D()) == 16) {
    if constexpr (Table<kBits, D>::kVecs == 1) {
      return hn::Vec<D>{_mm512_permutexvar_ps(index.raw, table.vecs[0].raw)};
    } else if constexpr (Table<kBits, D>::kVecs == 2) {
      return hn::Vec<D>{_mm512_permutex2var_ps(table.vecs[0].raw, index.raw, table.vecs[1].raw)};
    } else {
      return PickByBit<5>(
          d, index,
          hn::Vec<D>{_mm512_permutex2var_ps(table.vecs[0].raw, index.raw, table.vecs[1].raw)},
          hn::Vec<D>{_mm512_permutex2var_ps(table.vecs[2].raw, index.raw, table.vecs[3].raw)});
    }
  }
#endif
  if constexpr (hn::MaxLanes(D()) == 8) {
    hn::Vec<D> found[Table<kBits, D>::kVecs];
    KVASIR_UNROLL
    for (size_t i = 0; i < table.kVecs; ++i) {
      found[i] = hn::Vec<D>{_mm256_permutevar8x32_ps(table.vecs[i].raw, index.raw)};
    }
    if constexpr (Table<kBits, D>::kVecs >= 8) {
      KVASIR_UNROLL
      for (size_t i = 0; i < 4; ++i) {
        found[i] = PickByBit<5>(d, index, found[i], found[i + 4]);
      }
    }
    if constexpr (Table<kBits, D>::kVecs >= 4) {
      found[0] = PickByBit<4>(d, index, found[0], found[2]);
      found[1] = PickByBit<4>(d, index, found[1], found[3]);
    }
    if constexpr (Table<kBits, D>::kVecs >= 2) {
      found[0] = PickByBit<3>(d, index, found[0], found[1]);
    }
    return found[0];
  }
}

#if HWY_TARGET <= HWY_AVX3
// Adds 2^(kBit + plane) to `codes` where the plane's bit is set, for kPlanes words.
template <uint32_t kPlanes, uint32_t kBit>
HWY_INLINE __m512i JoinCodes(__m512i codes, const std::byte* words, size_t stride) {
  const hn::CappedTag<uint8_t, 64> d;
  KVASIR_UNROLL
  for (size_t plane = 0; plane < kPlanes; ++plane) {
    const auto bits = hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(words + plane * stride));
    codes = _mm512_mask_add_epi8(codes, bits.raw, codes,
                                 _mm512_set1_epi8(static_cast<char>(1U << (kBit + plane))));
  }
  return codes;
}
#endif

// The codes of as many tokens as D has lanes, from kPlanes words that lie `stride` bytes apart.
template <uint32_t kPlanes, class D>
HWY_INLINE hn::Vec<D> LoadCodes(D d, const std::byte* words, size_t stride) {
#if HWY_TARGET <= HWY_AVX3
  const auto mask_of = [&](size_t plane) HWY_ATTR {
    return hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(words + plane * stride)).raw;
  };
  if constexpr (hn::MaxLanes(D()) == 64) {
    return hn::Vec<D>{JoinCodes<kPlanes, 0>(_mm512_setzero_si512(), words, stride)};
  } else {
    __m256i codes = _mm256_maskz_set1_epi8(mask_of(0), 1);
    KVASIR_UNROLL
    for (size_t plane = 1; plane < kPlanes; ++plane) {
      codes = _mm256_mask_add_epi8(codes, mask_of(plane), codes,
                                   _mm256_set1_epi8(static_cast<char>(1U << plane)));
    }
    return hn::Vec<D>{codes};
  }
#else
  auto codes = hn::Zero(d);
  KVASIR_UNROLL
  for (size_t plane = kPlanes; plane-- > 0;) {
    const auto bits = hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(words + plane * stride));
    codes = hn::Sub(hn::Add(codes, codes), hn::VecFromMask(d, bits));
  }
  return codes;
#endif
}

// Indices of group kGroup.
template <size_t kGroup, class D8>
HWY_INLINE auto GroupOf(D8, hn::Vec<D8> codes) {
  const hn::Repartition<int32_t, D8> d;
  if constexpr (kGroup == 0) {
    return hn::BitCast(d, codes);
  } else {
    return hn::ShiftRight<8 * kGroup>(hn::BitCast(d, codes));
  }
}

// Which channels have how many planes, as bits. [planes][channel / 64]
struct ChannelClasses {
  uint64_t words[kCodePlanesMax + 1][kRecordDimsMax / 64];
};

HWY_INLINE void Classify(const std::byte* record, const Channels& channels, uint32_t dims,
                         ChannelClasses& classes) {
  uint32_t at = 0;
#if HWY_TARGET <= HWY_AVX3
  // Whole words from the descriptors themselves: parts of a word that were just stored reach a load
  // of the whole late.
  for (; at + 64 <= dims; at += 64) {
    const hn::CappedTag<uint8_t, 64> d;
    const auto descriptors =
        hn::LoadU(d, reinterpret_cast<const uint8_t*>(record + kDescriptorsAt + at));
    const auto planes = hn::And(descriptors, hn::Set(d, static_cast<uint8_t>(kPlanesMask)));
    for (uint32_t n = 1; n <= kCodePlanesMax; ++n) {
      const auto of_class = hn::Eq(planes, hn::Set(d, static_cast<uint8_t>(n)));
      hn::StoreMaskBits(d, of_class, reinterpret_cast<uint8_t*>(&classes.words[n][at / 64]));
    }
  }
#endif
  const hn::CappedTag<uint8_t, 32> d;
  for (; at < dims; at += 32) {
    const auto planes = hn::LoadU(d, channels.planes.data() + at);
    for (uint32_t n = 1; n <= kCodePlanesMax; ++n) {
      auto* to = reinterpret_cast<uint8_t*>(classes.words[n]) + at / 8;
      hn::StoreMaskBits(d, hn::Eq(planes, hn::Set(d, static_cast<uint8_t>(n))), to);
      if (at % 64 == 0) {
        std::memset(to + 4, 0, 4);
      }
    }
  }
}

// visit(c) for each channel of kPlanes planes.
template <uint32_t kPlanes, class Visit>
HWY_INLINE void ForEachOfClass(const ChannelClasses& classes, uint32_t dims, const Visit& visit) {
  for (uint32_t at = 0; at < dims; at += 64) {
    for (uint64_t left = classes.words[kPlanes][at / 64]; left != 0; left &= left - 1) {
      visit(at + static_cast<uint32_t>(std::countr_zero(left)));
    }
  }
}

// step(tag, c) for all channels from c on, as many at once as vectors allow.
template <class Step>
HWY_INLINE void ForEachColumn(uint32_t dims, const Step& step) {
  uint32_t c = 0;
  for (; c + kLanes <= dims; c += kLanes) {
    step(kernels::HWY_NAMESPACE::FloatTag(), c);
  }
  if (c < dims) {
    step(EightTag(), c);
  }
}

// scales[c] of all channels.
HWY_INLINE void LoadScales(const std::byte* record, uint32_t dims, float* scales) {
  const float scale = LoadHalf(record);
  ForEachColumn(dims, [&](auto d, uint32_t c) HWY_ATTR {
    using D = decltype(d);
    const hn::RebindToSigned<D> di;
    const hn::Rebind<uint8_t, D> d8;
    // The four over and over, so that bits of the index behind the second do not matter.
    const Table<3, D> quarters = {{hn::LoadDup128(d, kQuarters)}};
    const auto* at = reinterpret_cast<const uint8_t*>(record + kDescriptorsAt + c);
    const auto steps = hn::ShiftRight<kScaleShift>(hn::PromoteTo(di, hn::LoadU(d8, at)));
    const auto octaves = hn::ShiftLeft<23>(hn::ShiftRight<2>(steps));
    const auto factor = hn::Sub(hn::BitCast(di, Lookup(d, quarters, steps)), octaves);
    hn::StoreU(hn::Mul(hn::Set(d, scale), hn::BitCast(d, factor)), d, scales + c);
  });
}

// to[row] = factors[row] * norm of the row, for `rows` codes at `codes`.
HWY_INLINE void LoadNorms(const std::byte* codes, uint32_t rows, const float* factors, float* to) {
  const EightTag d;
  const hn::RebindToSigned<EightTag> di;
  const hn::Rebind<uint8_t, EightTag> d8;
  const auto sixteenths = LoadTable<4>(d, kSixteenths);
  for (uint32_t row = 0; row < rows; row += 8) {
    const auto* at = reinterpret_cast<const uint8_t*>(codes + row);
    const auto code = hn::PromoteTo(di, hn::LoadU(d8, at));
    const auto octaves = hn::ShiftLeft<23>(hn::Sub(hn::ShiftRight<4>(code), hn::Set(di, 8)));
    const auto norm = hn::Add(hn::BitCast(di, Lookup(d, sixteenths, code)), octaves);
    hn::Store(hn::Mul(hn::Load(d, factors + row), hn::BitCast(d, norm)), d, to + row);
  }
}

// Sums and differences of the vectors whose indices differ by kStride.
template <size_t kStride, size_t kVecs, class D>
HWY_INLINE void MixVecs(D, hn::Vec<D> (&v)[kVecs]) {
  KVASIR_UNROLL
  for (size_t i = 0; i < kVecs; ++i) {
    if ((i & kStride) == 0) {
      const auto a = v[i], b = v[i + kStride];
      v[i] = hn::Add(a, b);
      v[i + kStride] = hn::Sub(a, b);
    }
  }
}

template <size_t kVecs, class D>
HWY_INLINE void MixAllVecs(D d, hn::Vec<D> (&v)[kVecs]) {
  MixVecs<1>(d, v);
  MixVecs<2>(d, v);
  if constexpr (kVecs == 8) {
    MixVecs<4>(d, v);
  }
}

// Even lanes to one vector of a pair, odd ones to the other, then sums and differences: the lowest
// bit of the lane is mixed and chooses the vector from here on; the bit that chose it before is the
// highest of the lane, the others are one lower.
template <size_t kStride, size_t kVecs, class D>
HWY_INLINE void MixTurned(D d, hn::Vec<D> (&v)[kVecs]) {
  KVASIR_UNROLL
  for (size_t i = 0; i < kVecs; ++i) {
    if ((i & kStride) == 0) {
      const auto even = hn::ConcatEven(d, v[i + kStride], v[i]);
      const auto odd = hn::ConcatOdd(d, v[i + kStride], v[i]);
      v[i] = hn::Add(even, odd);
      v[i + kStride] = hn::Sub(even, odd);
    }
  }
}

// Sums and differences of the lanes whose indices differ in bit kBit, 0 or 1.
template <size_t kBit, size_t kVecs, class D>
HWY_INLINE void MixLanes(D d, hn::Vec<D> (&v)[kVecs]) {
  alignas(16) static constexpr float kSigns[2][4] = {{1, -1, 1, -1}, {1, 1, -1, -1}};
  const auto sign = hn::LoadDup128(d, kSigns[kBit]);
  KVASIR_UNROLL
  for (size_t i = 0; i < kVecs; ++i) {
    const auto other = kBit == 0 ? hn::Shuffle2301(v[i]) : hn::Shuffle1032(v[i]);
    v[i] = hn::MulAdd(v[i], sign, other);
  }
}

// Hadamard transforms of a block's tokens, without the factor. Each bit of a token's number is
// mixed while it chooses the vector, so the order of tokens changes on the way: from groups to
// tokens in order, and back. With bits 5 to 0 and sixteen lanes, vector | lane:
// 1 0 | 5 4 3 2 -> 1 2 | 0 5 4 3 -> 3 2 | 1 0 5 4 -> 3 4 | 2 1 0 5 -> 5 4 | 3 2 1 0.
template <size_t kVecs, class D>
HWY_INLINE void MixToTokens(D d, hn::Vec<D> (&v)[kVecs]) {
  MixAllVecs(d, v);
  MixTurned<1>(d, v);
  MixTurned<2>(d, v);
  MixTurned<1>(d, v);
  if constexpr (hn::MaxLanes(D()) == 16) {
    MixTurned<2>(d, v);
  } else {
    // Eight lanes: the vectors' lower two bits are the wrong way round.
    KVASIR_UNROLL
    for (size_t i = 1; i < kVecs; i += 4) {
      std::swap(v[i], v[i + 1]);
    }
  }
}

// 5 4 | 3 2 1 0 -> 5 0 | 4 3 2 1 -> 1 0 | 5 4 3 2; bits 2 and 3 never choose the vector.
template <size_t kVecs, class D>
HWY_INLINE void MixToGroups(D d, hn::Vec<D> (&v)[kVecs]) {
  MixAllVecs(d, v);
  MixTurned<1>(d, v);
  MixTurned<2>(d, v);
  MixLanes<0>(d, v);
  if constexpr (hn::MaxLanes(D()) == 16) {
    MixLanes<1>(d, v);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ENCODING_TM_CODES_INL_H_
