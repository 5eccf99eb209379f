// Encode: one column of channels after the other is mixed and turned on its side, then planes are
// given to channels and the tokens of each compared with the borders of its code book. Sums are in
// the order of docs/encodings.md; no product is fused with a sum.
#include <algorithm>
#include <cstring>
#include <span>

#include "kernels/encoding/tm_format.h"
#include "kernels/encoding/tm_record.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/tm_encode.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/encoding/tm_allocate-inl.h"
#include "kernels/encoding/tm_codes-inl.h"
#include "kernels/encoding/tm_search-inl.h"
#include "kernels/encoding/tm_transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::tm::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

using kernels::HWY_NAMESPACE::FloatTag;

// A block on its way into a record.
template <uint32_t kRows>
struct Block {
  // Leaves the arrays as they are: most are larger than what a call needs.
  Block(const RecordShape& of, const float* rows, uint32_t count)
      : shape(of), tile(rows), filled(count) {}
  const RecordShape& shape;
  const float* tile;
  uint32_t filled;
  HWY_ALIGN float factors[kRows];                 // sign of a row, over its norm
  HWY_ALIGN float means[kRecordDimsMax];          // zeros for values
  HWY_ALIGN float variances[kRecordDimsMax];      // of mixed rows
  HWY_ALIGN float mixed[kRecordDimsMax * kRows];  // [channel][mixed row]
};

template <uint32_t kRows>
HWY_INLINE void EncodeMeans(Block<kRows>& block, std::byte* record) {
  const uint32_t dims = block.shape.dims;
  ForEachColumn(dims, [&](auto d, uint32_t c) HWY_ATTR {
    hn::Vec<decltype(d)> sums[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    const float* at = block.tile + c;
    uint32_t row = 0;
    for (; row + 4 <= block.filled; row += 4, at += 4 * dims) {
      sums[0] = hn::Add(sums[0], hn::LoadU(d, at));
      sums[1] = hn::Add(sums[1], hn::LoadU(d, at + dims));
      sums[2] = hn::Add(sums[2], hn::LoadU(d, at + 2 * dims));
      sums[3] = hn::Add(sums[3], hn::LoadU(d, at + 3 * dims));
    }
    for (; row < block.filled; ++row, at += dims) {
      sums[row % 4] = hn::Add(sums[row % 4], hn::LoadU(d, at));
    }
    const auto sum = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
    const auto count = hn::Set(d, static_cast<float>(block.filled));
    hn::StoreU(hn::Div(sum, count), d, block.means + c);
  });
  const EightTag d;
  const hn::RebindToSigned<EightTag> di;
  auto most = hn::Zero(d);
  for (uint32_t c = 0; c < dims; c += 8) {
    most = hn::Max(most, hn::Abs(hn::Load(d, block.means + c)));
  }
  StoreHalf(hn::GetLane(hn::MaxOfLanes(d, most)) / 127.0F, record + kMeanScaleAt);
  const float half = LoadHalf(record + kMeanScaleAt);
  if (half == 0) {
    std::memset(record + SideAt(block.shape), 0, dims);
    std::fill_n(block.means, dims, 0.0F);
    return;
  }
  const auto scale = hn::Set(d, half), limit = hn::Set(d, 127.0F);
  for (uint32_t c = 0; c < dims; c += 8) {
    const auto near = hn::Round(hn::Div(hn::Load(d, block.means + c), scale));
    const auto code = hn::Max(hn::Min(near, limit), hn::Neg(limit));
    hn::Store(hn::Mul(scale, code), d, block.means + c);
    const hn::Rebind<int8_t, EightTag> d8;
    auto* to = reinterpret_cast<int8_t*>(record + SideAt(block.shape) + c);
    hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(di, code)), d8, to);
  }
}

// Sums of squares of a row: one for each of sixteen channels, folded to four.
HWY_INLINE hn::Vec<hn::CappedTag<float, 4>> SquaresOf(const float* row, uint32_t dims) {
  const EightTag d;
  auto low = hn::Zero(d), high = hn::Zero(d);
  uint32_t c = 0;
  for (; c + 16 <= dims; c += 16) {
    const auto a = hn::LoadU(d, row + c), b = hn::LoadU(d, row + c + 8);
    low = hn::Add(low, hn::Mul(a, a));
    high = hn::Add(high, hn::Mul(b, b));
  }
  if (c < dims) {
    const auto a = hn::LoadU(d, row + c);
    low = hn::Add(low, hn::Mul(a, a));
  }
  const hn::CappedTag<float, 4> four;
  const auto eight = hn::Add(low, high);
  return hn::Add(hn::LowerHalf(four, eight), hn::UpperHalf(four, eight));
}

template <uint32_t kRows>
HWY_INLINE void EncodeNorms(Block<kRows>& block, std::byte* record) {
  const uint32_t dims = block.shape.dims;
  std::byte* codes = record + SideAt(block.shape);
  std::memset(codes, 0, kRows);
  for (uint32_t row = 0; row < block.filled; ++row) {
    const auto four = SquaresOf(block.tile + size_t{row} * dims, dims);
    const auto two = hn::Add(four, hn::Shuffle1032(four));
    const float sum = hn::GetLane(hn::Add(two, hn::Shuffle2301(two)));
    const uint32_t code = NormCodeOf(sum / static_cast<float>(dims));
    codes[row] = static_cast<std::byte>(code);
    block.factors[row] *= NormFactor(256 - code);
  }
}

// The rows r, r + 8, ... of a column, signed and without mean or norm, mixed by strides of 8 and
// more.
template <uint32_t kRows, class D>
HWY_INLINE void MixFar(D d, const Block<kRows>& block, uint32_t c, uint32_t first, float* to) {
  constexpr size_t kVecs = kRows / 8;
  hn::Vec<D> v[kVecs];
  const auto mean = hn::Load(d, block.means + c);
  KVASIR_UNROLL
  for (size_t i = 0; i < kVecs; ++i) {
    const size_t row = first + i * 8;
    v[i] = row < block.filled
               ? hn::Mul(hn::Sub(hn::LoadU(d, block.tile + row * block.shape.dims + c), mean),
                         hn::Set(d, block.factors[row]))
               : hn::Zero(d);
  }
  MixAllVecs(d, v);
  KVASIR_UNROLL
  for (size_t i = 0; i < kVecs; ++i) {
    hn::Store(v[i], d, to + (first + i * 8) * hn::MaxLanes(d));
  }
}

// Eight rows from `row` on mixed by strides of 1 to 4, and the sum of their squares.
template <class D>
HWY_INLINE hn::Vec<D> MixNear(D d, const float* from, hn::Vec<D> (&v)[8]) {
  KVASIR_UNROLL
  for (size_t i = 0; i < 8; ++i) {
    v[i] = hn::Load(d, from + i * hn::MaxLanes(d));
  }
  MixAllVecs(d, v);
  hn::Vec<D> squares[8];
  KVASIR_UNROLL
  for (size_t i = 0; i < 8; ++i) {
    squares[i] = hn::Mul(v[i], v[i]);
  }
  return hn::Add(hn::Add(hn::Add(squares[0], squares[1]), hn::Add(squares[2], squares[3])),
                 hn::Add(hn::Add(squares[4], squares[5]), hn::Add(squares[6], squares[7])));
}

template <uint32_t kRows>
HWY_INLINE void MixColumns(Block<kRows>& block) {
  HWY_ALIGN float column[kRows * kLanes];
  ForEachColumn(block.shape.dims, [&](auto d, uint32_t c) HWY_ATTR {
    for (uint32_t first = 0; first < 8; ++first) {
      MixFar(d, block, c, first, column);
    }
    auto sum = hn::Zero(d);
    for (uint32_t row = 0; row < kRows; row += 8) {
      hn::Vec<decltype(d)> v[8];
      sum = hn::Add(sum, MixNear(d, column + row * hn::MaxLanes(d), v));
      StoreTransposed(d, v, block.mixed + size_t{c} * kRows + row, kRows);
    }
    const auto count = hn::Set(d, static_cast<float>(kRows * kRows));
    hn::Store(hn::Div(sum, count), d, block.variances + c);
  });
}

template <uint32_t kRows, uint32_t kPlanes>
HWY_INLINE void EncodeClass(const Block<kRows>& block, const Channels& channels,
                            const ChannelClasses& classes, const float* scales, std::byte* record) {
  std::byte* words = record + PlanesAt(block.shape);
  ForEachOfClass<kPlanes>(classes, block.shape.dims, [&](uint32_t c) HWY_ATTR {
    EncodeChannel<kRows, kPlanes>(block.mixed + size_t{c} * kRows, scales[c] * RootOf(kRows),
                                  words + size_t{channels.WordOf(c)} * (kRows / 8));
  });
}

template <uint32_t kRows>
HWY_INLINE void EncodeAll(const Block<kRows>& block, std::span<const float> weights,
                          std::byte* record) {
  const uint32_t dims = block.shape.dims;
  const float scale =
      EncodeScale(*std::max_element(block.variances, block.variances + dims), record);
  HWY_ALIGN float scales[kRecordDimsMax];
  HWY_ALIGN float gains[kRecordDimsMax + kLanes] = {};
  std::byte* descriptors = record + kDescriptorsAt;
  for (uint32_t c = 0; c < dims; ++c) {
    const uint32_t steps = ScaleSteps(scale * scale / block.variances[c]);
    scales[c] = scale * ScaleFactor(steps);
    gains[c] = (weights.empty() ? 1.0F : CleanWeight(weights[c])) * (scales[c] * scales[c]);
    descriptors[c] = static_cast<std::byte>(steps << kScaleShift);
  }
  uint8_t planes[kRecordDimsMax];
  Allocate(block.shape, gains, planes);
  for (uint32_t c = 0; c < dims; ++c) {
    descriptors[c] |= static_cast<std::byte>(planes[c]);
  }
  const Channels channels(block.shape, record);
  ChannelClasses classes;
  Classify(record, channels, dims, classes);
  EncodeClass<kRows, 1>(block, channels, classes, scales, record);
  EncodeClass<kRows, 2>(block, channels, classes, scales, record);
  EncodeClass<kRows, 3>(block, channels, classes, scales, record);
  EncodeClass<kRows, 4>(block, channels, classes, scales, record);
  EncodeClass<kRows, 5>(block, channels, classes, scales, record);
  EncodeClass<kRows, 6>(block, channels, classes, scales, record);
}

template <uint32_t kRows>
void EncodeBlock(const RecordShape& shape, const float* tile, uint32_t filled,
                 std::span<const float> weights, std::byte* record) {
  Block<kRows> block(shape, tile, filled);
  for (uint32_t row = 0; row < kRows; ++row) {
    block.factors[row] = SignOf(kRows, row);
  }
  StoreHalf(0, record + kMeanScaleAt);
  if (shape.plane == RecordPlane::kKey) {
    EncodeMeans(block, record);
  } else {
    std::fill_n(block.means, shape.dims, 0.0F);
    EncodeNorms(block, record);
  }
  MixColumns(block);
  EncodeAll(block, weights, record);
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void EncodeTarget(const RecordShape& shape, const float* tile, uint32_t filled,
                  std::span<const float> weights, std::byte* record) {
#if KVASIR_VECTOR_TARGET
  if (shape.rows == 64) {
    return EncodeBlock<64>(shape, tile, filled, weights, record);
  }
  EncodeBlock<32>(shape, tile, filled, weights, record);
#else
  scalar::Encode(shape, tile, filled, weights, record);
#endif
}

}  // namespace kvasir::kernels::tm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels::tm {

HWY_EXPORT(EncodeTarget);

void Encode(const RecordShape& shape, const float* tile, uint32_t filled,
            std::span<const float> weights, std::byte* record) {
  HWY_DYNAMIC_DISPATCH(EncodeTarget)(shape, tile, filled, weights, record);
}

}  // namespace kvasir::kernels::tm
#endif  // HWY_ONCE
