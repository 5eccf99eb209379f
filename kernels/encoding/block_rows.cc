// LoadBlockRows: rows are converted and turned while they are in the first-level cache.
#include "kernels/encoding/block_rows.h"

#include "base/check.h"
#include "kernels/encoding/block_turn.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/block_rows.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/copy_row-inl.h"
#include "kernels/row_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

using EightTag = hn::CappedTag<float, 8>;

template <class D>
HWY_INLINE hn::Vec<D> Clean(D d, hn::Vec<D> value) {
  const auto most = hn::Set(d, kTileMax);
  const auto number = hn::IfThenElseZero(hn::Eq(value, value), value);
  return hn::Max(hn::Min(number, most), hn::Neg(most));
}

template <class T>
HWY_INLINE hn::Vec<EightTag> LoadEight(const std::byte* at) {
  const EightTag d;
  if constexpr (std::is_same_v<T, float>) {
    return hn::LoadU(d, reinterpret_cast<const float*>(at));
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<T, EightTag>(), reinterpret_cast<const T*>(at)));
  }
}

template <class T>
HWY_INLINE void LoadClean(const std::byte* from, size_t dims, float* to) {
  const FloatTag d;
  size_t dim = 0;
  for (; dim + 2 * kLanes <= dims; dim += 2 * kLanes) {
    FloatVec low, high;
    LoadPair<T>(from + dim * sizeof(T), low, high);
    hn::StoreU(Clean(d, low), d, to + dim);
    hn::StoreU(Clean(d, high), d, to + dim + kLanes);
  }
  const EightTag eight;
  for (; dim < dims; dim += 8) {
    hn::StoreU(Clean(eight, LoadEight<T>(from + dim * sizeof(T))), eight, to + dim);
  }
}

// Products are rounded one by one, as the plain code does.
HWY_INLINE void TurnInterleaved(const BlockTurn& by, size_t dims, float* row) {
  const EightTag d;
  size_t dim = 0;
  for (; dim + 8 <= dims; dim += 8) {
    const auto x = hn::LoadU(d, row + dim);
    const auto straight = hn::Mul(x, hn::LoadU(d, by.cosine() + dim));
    const auto crossed = hn::Mul(hn::Shuffle2301(x), hn::LoadU(d, by.sine() + dim));
    const auto turned = hn::OddEven(hn::Add(straight, crossed), hn::Sub(straight, crossed));
    hn::StoreU(Clean(d, turned), d, row + dim);
  }
  const hn::CappedTag<float, 1> one;
  for (; dim < dims; dim += 2) {
    const auto x = hn::LoadU(one, row + dim), y = hn::LoadU(one, row + dim + 1);
    const auto c = hn::LoadU(one, by.cosine() + dim), s = hn::LoadU(one, by.sine() + dim);
    hn::StoreU(Clean(one, hn::Sub(hn::Mul(x, c), hn::Mul(y, s))), one, row + dim);
    hn::StoreU(Clean(one, hn::Add(hn::Mul(y, c), hn::Mul(x, s))), one, row + dim + 1);
  }
}

template <class D>
HWY_INLINE void TurnPairs(D d, const BlockTurn& by, size_t pair, float* first, float* second) {
  const auto x = hn::LoadU(d, first + pair), y = hn::LoadU(d, second + pair);
  const auto c = hn::LoadU(d, by.cosine() + pair), s = hn::LoadU(d, by.sine() + pair);
  hn::StoreU(Clean(d, hn::Sub(hn::Mul(x, c), hn::Mul(y, s))), d, first + pair);
  hn::StoreU(Clean(d, hn::Add(hn::Mul(y, c), hn::Mul(x, s))), d, second + pair);
}

HWY_INLINE void TurnHalves(const BlockTurn& by, size_t dims, float* row) {
  const size_t pairs = dims / 2;
  size_t pair = 0;
  for (; pair + 8 <= pairs; pair += 8) {
    TurnPairs(EightTag(), by, pair, row, row + pairs);
  }
  for (; pair < pairs; ++pair) {
    TurnPairs(hn::CappedTag<float, 1>(), by, pair, row, row + pairs);
  }
}

template <class T>
void LoadTyped(uint32_t dims, std::span<const std::byte* const> sources, const RecordTurn& turn,
               float* tile) {
  BlockTurn& by = BlockTurn::Of(turn.rope);
  const size_t ahead = kAheadBytes / (dims * sizeof(T)) + 1;
  for (size_t row = 0; row < sources.size(); ++row) {
    if (row + ahead < sources.size()) {
      PrefetchRow(sources[row + ahead], dims * sizeof(T));
    }
    float* to = tile + row * dims;
    LoadClean<T>(sources[row], dims, to);
    if (!turn.deltas.empty() && turn.deltas[row] != 0) {
      by.Turn(turn.deltas[row]);
      if (turn.rope.pairing == RopePairing::kInterleaved) {
        TurnInterleaved(by, turn.rope.rotated_dims, to);
      } else {
        TurnHalves(by, turn.rope.rotated_dims, to);
      }
    }
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void LoadBlockRowsTarget(RowType type, uint32_t dims, std::span<const std::byte* const> sources,
                         const RecordTurn& turn, float* tile) {
#if KVASIR_VECTOR_TARGET
  switch (type) {
    case RowType::kF16:
      return LoadTyped<hwy::float16_t>(dims, sources, turn, tile);
    case RowType::kBF16:
      return LoadTyped<hwy::bfloat16_t>(dims, sources, turn, tile);
    case RowType::kF32:
      return LoadTyped<float>(dims, sources, turn, tile);
    case RowType::kE4M3:
      break;
  }
#endif
  scalar::LoadBlockRows(type, dims, sources, turn, tile);
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(LoadBlockRowsTarget);

void LoadBlockRows(RowType type, uint32_t dims, std::span<const std::byte* const> sources,
                   const RecordTurn& turn, float* tile) {
  KVASIR_CHECK(dims % 8 == 0 && dims <= kRecordDimsMax, "rows of {} elements", dims);
  KVASIR_CHECK(turn.deltas.empty() || turn.deltas.size() == sources.size(), "{} rows, {} deltas",
               sources.size(), turn.deltas.size());
  KVASIR_CHECK(
      turn.deltas.empty() || (turn.rope.rotated_dims % 2 == 0 && turn.rope.rotated_dims <= dims),
      "{} rotated of {} dimensions", turn.rope.rotated_dims, dims);
  HWY_DYNAMIC_DISPATCH(LoadBlockRowsTarget)(type, dims, sources, turn, tile);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
