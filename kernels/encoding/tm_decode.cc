// Rows of a token-mixed record: each channel's codes are turned back into its tokens, then channels
// into rows, eight at a time.
#include <algorithm>

#include "kernels/encoding/tm_format.h"
#include "kernels/encoding/tm_record.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/tm_decode.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what this is compiled for.
#include "kernels/encoding/tm_codes-inl.h"
#include "kernels/encoding/tm_transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

template <uint32_t kRows>
using Tokens = hn::Vec<GroupTag<kRows>>[kParts<kRows> * 4];

template <uint32_t kRows, uint32_t kPlanes>
HWY_INLINE void Expand(const std::byte* words, Tokens<kRows>& levels) {
  const GroupTag<kRows> d;
  const CodeTag<kRows> d8;
  const auto table = LoadTable<kPlanes>(d, kCodeBooks.levels[kPlanes]);
  KVASIR_UNROLL
  for (size_t part = 0; part < kParts<kRows>; ++part) {
    const auto codes = LoadCodes<kPlanes>(d8, words + part * kTokens<kRows> / 8, kRows / 8);
    levels[part * 4] = Lookup(d, table, GroupOf<0>(d8, codes));
    levels[part * 4 + 1] = Lookup(d, table, GroupOf<1>(d8, codes));
    levels[part * 4 + 2] = Lookup(d, table, GroupOf<2>(d8, codes));
    levels[part * 4 + 3] = Lookup(d, table, GroupOf<3>(d8, codes));
  }
}

template <uint32_t kRows>
HWY_INLINE void ExpandPlanes(uint32_t planes, const std::byte* words, Tokens<kRows>& levels) {
  switch (planes) {
    case 1:
      return Expand<kRows, 1>(words, levels);
    case 2:
      return Expand<kRows, 2>(words, levels);
    case 3:
      return Expand<kRows, 3>(words, levels);
    case 4:
      return Expand<kRows, 4>(words, levels);
    case 5:
      return Expand<kRows, 5>(words, levels);
    default:
      return Expand<kRows, 6>(words, levels);
  }
}

// to[kRows] = the channel's tokens, factors[row] * (transform of scale * levels) + mean.
template <uint32_t kRows>
HWY_INLINE void DecodeChannel(uint32_t planes, const std::byte* words, float scale,
                              const float* factors, float mean, float* to) {
  const GroupTag<kRows> d;
  if (planes == 0) {
    std::fill_n(to, kRows, mean);
    return;
  }
  Tokens<kRows> v;
  ExpandPlanes<kRows>(planes, words, v);
  MixToTokens(d, v);
  const auto by = hn::Set(d, scale), plus = hn::Set(d, mean);
  KVASIR_UNROLL
  for (size_t i = 0; i < kParts<kRows> * 4; ++i) {
    const auto factor = hn::Load(d, factors + i * hn::MaxLanes(d));
    hn::Store(hn::MulAdd(hn::Mul(v[i], by), factor, plus), d, to + i * hn::MaxLanes(d));
  }
}

template <uint32_t kRows>
void DecodeRows(const RecordShape& shape, const std::byte* record, float* rows) {
  const Channels channels(shape, record);
  const bool fits = channels.Fits(shape);
  const bool keys = shape.plane == RecordPlane::kKey;
  HWY_ALIGN float scales[kRecordDimsMax];
  LoadScales(record, shape.dims, scales);
  HWY_ALIGN float norms[kRows];
  if (!keys) {
    LoadNorms(record + SideAt(shape), kRows, kRowFactors<kRows>.of, norms);
  }
  const float* factors = keys ? kRowFactors<kRows>.of : norms;
  const float mean_scale = keys ? LoadHalf(record + kMeanScaleAt) : 0.0F;
  HWY_ALIGN float eight[8 * kRows];
  for (uint32_t c = 0; c < shape.dims; ++c) {
    const float mean =
        keys ? mean_scale * static_cast<float>(static_cast<int8_t>(record[SideAt(shape) + c]))
             : 0.0F;
    const std::byte* words =
        record + PlanesAt(shape) + (fits ? size_t{channels.WordOf(c)} * (kRows / 8) : 0);
    DecodeChannel<kRows>(fits ? channels.planes[c] : 0, words, scales[c], factors, mean,
                         eight + c % 8 * kRows);
    if (c % 8 == 7) {
      for (uint32_t row = 0; row < kRows; row += 8) {
        hn::Vec<EightTag> v[8];
        KVASIR_UNROLL
        for (size_t i = 0; i < 8; ++i) {
          v[i] = hn::Load(EightTag(), eight + i * kRows + row);
        }
        StoreTransposed(EightTag(), v, rows + size_t{row} * shape.dims + c - 7, shape.dims);
      }
    }
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void DecodeTarget(const RecordShape& shape, const std::byte* record, float* rows) {
#if KVASIR_VECTOR_TARGET
  if (shape.rows == 64) {
    return DecodeRows<64>(shape, record, rows);
  }
  DecodeRows<32>(shape, record, rows);
#else
  scalar::Decode(shape, record, rows);
#endif
}

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::tm {

HWY_EXPORT(DecodeTarget);

void Decode(const RecordShape& shape, const std::byte* record, float* rows) {
  HWY_DYNAMIC_DISPATCH(DecodeTarget)(shape, record, rows);
}

}  // namespace kvasir::kernels::tm
#endif  // HWY_ONCE
