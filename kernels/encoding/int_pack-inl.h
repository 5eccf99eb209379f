// Scales of an int record and its codes, packed into words. Codes are made with channels in the
// lanes and packed there, so that only words of 4 or 8 codes are transposed. Included once per
// Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_ENCODING_INT_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_ENCODING_INT_PACK_INL_H_
#undef KVASIR_KERNELS_ENCODING_INT_PACK_INL_H_
#else
#define KVASIR_KERNELS_ENCODING_INT_PACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/encoding/int_code-inl.h"
#include "kernels/encoding/int_layout.h"
#include "kernels/row_store-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

using HalfTag = hn::Rebind<hwy::float16_t, FloatTag>;
using HalfBitsTag = hn::Rebind<uint16_t, FloatTag>;
using HalfBitsVec = hn::Vec<HalfBitsTag>;

// `half` moved by one step, up or down, where `wrong`.
HWY_INLINE HalfBitsVec Step(HalfBitsVec half, hn::Mask<FloatTag> wrong, bool up) {
  const WordTag du;
  const hn::RebindToSigned<FloatTag> di;
  const WordVec bits = hn::PromoteTo(du, half);
  // Further from zero is one more, whatever the sign.
  const auto negative = hn::Gt(bits, hn::Set(du, 0x7FFFU));
  const WordVec one = hn::Set(du, 1U);
  const WordVec minus_one = hn::Set(du, ~0U);
  const WordVec step =
      up ? hn::IfThenElse(negative, minus_one, one) : hn::IfThenElse(negative, one, minus_one);
  const WordVec moved = hn::Add(bits, hn::IfThenElseZero(hn::RebindMask(du, wrong), step));
  return hn::DemoteTo(HalfBitsTag(), hn::BitCast(di, moved));
}

HWY_INLINE FloatVec FromHalf(HalfBitsVec half) {
  return hn::PromoteTo(FloatTag(), hn::BitCast(HalfTag(), half));
}

// Zero and scale of the elements between `least` and `most`, one pair a lane.
struct Scales {
  HWY_INLINE Scales(FloatVec least, FloatVec most, float levels) {
    const FloatTag d;
    // Adding 0 makes 0 of -0: which of several zeros is least or largest depends on the order.
    least = hn::Add(least, hn::Zero(d));
    const HalfBitsVec near = Narrow<hwy::float16_t>(least);
    zero_half = Step(near, hn::Gt(FromHalf(near), least), false);
    zero = FromHalf(zero_half);
    const FloatVec scale = hn::Div(hn::Add(hn::Sub(most, zero), hn::Zero(d)), hn::Set(d, levels));
    const HalfBitsVec close = Narrow<hwy::float16_t>(scale);
    scale_half = Step(close, hn::Lt(FromHalf(close), scale), true);
    const FloatVec used = FromHalf(scale_half);
    inverse = hn::IfThenElseZero(hn::Gt(used, hn::Zero(d)), hn::Div(hn::Set(d, 1.0F), used));
  }
  FloatVec zero, inverse;
  HalfBitsVec zero_half, scale_half;
};

// Scales, zeros and inverses by their index in a record.
struct ScaleTables {
  HWY_INLINE void Set(size_t index, const Scales& scales) {
    hn::StoreU(scales.zero, FloatTag(), zero + index);
    hn::StoreU(scales.inverse, FloatTag(), inverse + index);
    hn::StoreU(scales.zero_half, HalfBitsTag(), zero_half + index);
    hn::StoreU(scales.scale_half, HalfBitsTag(), scale_half + index);
  }
  void Write(const IntLayout& layout, std::byte* record) const {
    std::memcpy(record, scale_half, layout.scales * sizeof scale_half[0]);
    std::memcpy(record + layout.ZerosAt(), zero_half, layout.scales * sizeof zero_half[0]);
  }
  // Vectors of channels may go past the last one.
  static constexpr size_t kMost = kRecordDimsMax + kLanes;
  HWY_ALIGN float zero[kMost];
  HWY_ALIGN float inverse[kMost];
  HWY_ALIGN uint16_t zero_half[kMost];
  HWY_ALIGN uint16_t scale_half[kMost];
};

// Floats from here on have no bits behind the point: adding it rounds to an integer, ties to even,
// which the low bits then hold.
constexpr float kMagic = 0x1p23F;
constexpr uint32_t kMagicBits = 0x4B000000U;

// What is left of kMagic in a word when all its codes are appended.
template <int kBits>
constexpr uint32_t MagicLeft() {
  uint32_t left = 0;
  for (int shift = 0; shift < 32; shift += kBits) {
    left ^= kMagicBits << shift;
  }
  return left;
}

// words << kBits | the code of each lane, and kMagic's bits. Rounded once, as a product in double.
template <class T, int kBits>
HWY_INLINE WordVec Append(WordVec words, const std::byte* at, FloatVec zero, FloatVec inverse) {
  const FloatTag d;
  const FloatVec code = hn::MulAdd(hn::Sub(LoadRow<T>(at), zero), inverse, hn::Set(d, kMagic));
  return hn::Xor(hn::ShiftLeft<kBits>(words), hn::BitCast(WordTag(), code));
}

template <int kBits>
HWY_INLINE WordVec WithoutMagic(WordVec words) {
  return hn::Xor(words, hn::Set(WordTag(), MagicLeft<kBits>()));
}

// Words of kLanes runs from `run` on, four words of each at a time: the channels of a vector become
// the words of a run.
template <class T, int kBits, size_t kStrips>
HWY_NOINLINE void PackKeys(const IntLayout& layout, const std::byte* tile,
                           const ScaleTables& tables, std::byte* codes) {
  constexpr size_t kShared = 32 / kBits / kStrips;  // channels in a word
  const FloatTag d;
  const WordTag du;
  const size_t row_bytes = layout.dims * sizeof(T);
  HWY_ALIGN uint32_t quads[4 * kLanes];
  for (size_t run = 0; run < layout.stretch; run += kLanes) {
    const size_t runs = std::min(kLanes, layout.stretch - run);
    for (size_t row = 0; row < kIntRunRows; row += 4) {
      WordVec words[4];
      KVASIR_UNROLL
      for (size_t i = 0; i < 4; ++i) {
        words[i] = hn::Zero(du);
      }
      // From the highest code of a word to the lowest.
      KVASIR_UNROLL
      for (size_t shared = kShared; shared-- > 0;) {
        const size_t dim = run + shared * layout.stretch;
        const FloatVec zero = hn::LoadU(d, tables.zero + dim);
        const FloatVec inverse = hn::LoadU(d, tables.inverse + dim);
        KVASIR_UNROLL
        for (size_t strip = kStrips; strip-- > 0;) {
          const std::byte* at = tile + (row + strip * kIntRunRows) * row_bytes + dim * sizeof(T);
          KVASIR_UNROLL
          for (size_t i = 0; i < 4; ++i) {
            words[i] = Append<T, kBits>(words[i], at + i * row_bytes, zero, inverse);
          }
        }
      }
      KVASIR_UNROLL
      for (size_t i = 0; i < 4; ++i) {
        words[i] = WithoutMagic<kBits>(words[i]);
      }
      hn::StoreInterleaved4(words[0], words[1], words[2], words[3], du, quads);
      std::byte* to = codes + (run * kIntRunRows + row) * sizeof(uint32_t);
      for (size_t i = 0; i < runs; ++i) {
        std::memcpy(to + i * kIntRunRows * sizeof(uint32_t), quads + i * 4, 4 * sizeof(uint32_t));
      }
    }
  }
}

template <class T, int kBits>
HWY_NOINLINE void PackValues(const IntLayout& layout, const std::byte* tile,
                             const ScaleTables& tables, std::byte* codes) {
  constexpr size_t kPerWord = 32 / kBits;
  const FloatTag d;
  const WordTag du;
  const size_t row_bytes = layout.dims * sizeof(T);
  for (size_t row = 0; row < layout.rows; row += kPerWord) {
    for (size_t dim = 0, end = 0; dim < layout.dims; dim = end) {
      end = std::min(dim + kIntGroupDims, layout.dims);
      const size_t index = dim / kIntGroupDims * layout.rows + row;
      FloatVec zero[kPerWord], inverse[kPerWord];
      KVASIR_UNROLL
      for (size_t i = 0; i < kPerWord; ++i) {
        zero[i] = hn::Set(d, tables.zero[index + i]);
        inverse[i] = hn::Set(d, tables.inverse[index + i]);
      }
      for (; dim < end; dim += kLanes) {
        const std::byte* at = tile + row * row_bytes + dim * sizeof(T);
        WordVec words = hn::Zero(du);
        KVASIR_UNROLL
        for (size_t i = kPerWord; i-- > 0;) {
          words = Append<T, kBits>(words, at + i * row_bytes, zero[i], inverse[i]);
        }
        auto* to = reinterpret_cast<uint32_t*>(codes + dim * sizeof(uint32_t));
        words = WithoutMagic<kBits>(words);
        if (IsWhole(dim, layout.dims)) {
          hn::StoreU(words, du, to);
        } else {
          const hn::Half<WordTag> half;
          hn::StoreU(hn::LowerHalf(half, words), half, to);
        }
      }
    }
    codes += layout.dims * sizeof(uint32_t);
  }
}

// All codes of a tile of elements of type T, [rows][dims] and ints::kTileSlack more.
template <class T>
void Pack(const IntLayout& layout, const std::byte* tile, const ScaleTables& tables,
          std::byte* codes) {
  const bool few = layout.strips == 2;
  const auto keys = layout.bits == 8 ? (few ? PackKeys<T, 8, 2> : PackKeys<T, 8, 4>)
                                     : (few ? PackKeys<T, 4, 2> : PackKeys<T, 4, 4>);
  const auto values = layout.bits == 8 ? PackValues<T, 8> : PackValues<T, 4>;
  (layout.key ? keys : values)(layout, tile, tables, codes);
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_ENCODING_INT_PACK_INL_H_
