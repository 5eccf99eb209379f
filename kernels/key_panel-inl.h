// Rows of a tile converted once to float for many queries, and their register-blocked product.
// Included once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_KEY_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_KEY_PANEL_INL_H_
#undef KVASIR_KERNELS_KEY_PANEL_INL_H_
#else
#define KVASIR_KERNELS_KEY_PANEL_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/row_convert.h"
#include "kernels/row_load-inl.h"
#include "kernels/row_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

#if KVASIR_VECTOR_TARGET

// Register block: 6 queries by 4 vectors of 16 lanes (24 of 32 registers), or 2 of 8 (12 of 16).
constexpr size_t kBlockQueries = 6;
constexpr size_t kBlockVecs = kLanes >= 16 ? 4 : 2;
constexpr size_t kBlockFloats = kBlockVecs * kLanes;
static_assert(kTileRows % kBlockFloats == 0);

// c[i][0..kBlockFloats) = sum over n < depth of a[i][n] * b[n][0..kBlockFloats), for kQueries rows
// i.
template <size_t kQueries>
HWY_NOINLINE void Multiply(const float* a, size_t a_stride, const float* b, size_t b_stride,
                           size_t depth, float* c, size_t c_stride) {
  const FloatTag d;
  FloatVec sum[kQueries][kBlockVecs];
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kBlockVecs; ++j) {
      sum[i][j] = hn::Zero(d);
    }
  }
  for (size_t n = 0; n < depth; ++n) {
    FloatVec column[kBlockVecs];
    KVASIR_UNROLL
    for (size_t j = 0; j < kBlockVecs; ++j) {
      column[j] = hn::Load(d, b + n * b_stride + j * kLanes);
    }
    KVASIR_UNROLL
    for (size_t i = 0; i < kQueries; ++i) {
      const FloatVec x = hn::Set(d, a[i * a_stride + n]);
      KVASIR_UNROLL
      for (size_t j = 0; j < kBlockVecs; ++j) {
        sum[i][j] = hn::MulAdd(x, column[j], sum[i][j]);
      }
    }
  }
  KVASIR_UNROLL
  for (size_t i = 0; i < kQueries; ++i) {
    KVASIR_UNROLL
    for (size_t j = 0; j < kBlockVecs; ++j) {
      hn::Store(sum[i][j], d, c + i * c_stride + j * kLanes);
    }
  }
}

template <class T>
void PackRow(const std::byte* row, RowType type, size_t dims, float* to) {
  const FloatTag d;
  size_t dim = 0;
  for (; dim + kLanes <= dims; dim += kLanes) {
    hn::StoreU(LoadRow<T>(row + dim * sizeof(T)), d, to + dim);
  }
  for (; dim < dims; ++dim) {
    to[dim] = LoadElement(type, row, dim);
  }
}

// Keys of `count` <= kTileRows rows, transposed: keys[dims][kTileRows], aligned; columns behind
// `count` become zero. Four rows at a time: a dimension of four rows is one move of 16 bytes.
template <class T>
void PackKeys(const std::byte* const* rows, size_t count, RowType type, size_t dims, float* keys) {
  const FloatTag d;
  HWY_ALIGN float quads[4 * kLanes];
  const size_t whole = dims / kLanes * kLanes;
  size_t row = 0;
  for (; row + 4 <= count; row += 4) {
    for (size_t dim = 0; dim < whole; dim += kLanes) {
      const size_t at = dim * sizeof(T);
      hn::StoreInterleaved4(LoadRow<T>(rows[row] + at), LoadRow<T>(rows[row + 1] + at),
                            LoadRow<T>(rows[row + 2] + at), LoadRow<T>(rows[row + 3] + at), d,
                            quads);
      for (size_t i = 0; i < kLanes; ++i) {
        std::memcpy(keys + (dim + i) * kTileRows + row, quads + 4 * i, 4 * sizeof(float));
      }
    }
  }
  // What no group of four or no whole vector covers.
  for (size_t left = 0; left < count; ++left) {
    for (size_t dim = left < row ? whole : 0; dim < dims; ++dim) {
      keys[dim * kTileRows + left] = LoadElement(type, rows[left], dim);
    }
  }
  for (size_t dim = 0; dim < dims && count < kTileRows; ++dim) {
    std::fill(keys + dim * kTileRows + count, keys + (dim + 1) * kTileRows, 0.0F);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_KEY_PANEL_INL_H_
