#include "kernels/encoding/coded_values.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.h"
#include "kernels/row_convert.h"
#include "kernels/scores.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/coded_values.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/row_load-inl.h"
#include "kernels/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

constexpr size_t kPieceRows = 64;
// Query heads whose weights are held at once.
constexpr size_t kHeadsMax = 16;

// Adds at most kPieceRows rows of one kv head, `keys` and `values`, to `heads` query heads from
// `head` on.
void AttendPiece(const CodedAttention& shape, const float* q, const KeyRun& keys,
                 std::span<const std::byte* const> values, size_t head, size_t heads,
                 AttentionState& state) {
  HWY_ALIGN float weights[kHeadsMax * kPieceRows];
  const KeyShape key = {.type = shape.rows.type, .kv_heads = 1, .dim = shape.rows.k_dim};
  float* acc = state.acc.data() + head * shape.rows.v_dim;
  for (size_t i = 0; i < heads; ++i) {
    float* of_head = weights + i * kPieceRows;
    DotRows(key, q + i * shape.rows.k_dim, {&keys, 1}, of_head);
    const float keep = Softmax(of_head, kPieceRows, 0, keys.rows, shape.rows.scale,
                               state.max[head + i], state.sum[head + i]);
    for (size_t dim = 0; keep != 1.0F && dim < shape.rows.v_dim; ++dim) {
      acc[i * shape.rows.v_dim + dim] *= keep;
    }
    // To [head][row] without the rows that are not there.
    std::copy_n(of_head, keys.rows, weights + i * keys.rows);
  }
  AddRotatedRows(shape.value, values, weights, static_cast<uint32_t>(heads), acc);
}

void AttendCodedTarget(const CodedAttention& shape, const float* q,
                       std::span<const AttentionRun> runs, AttentionState& state) {
  const AttentionShape& rows = shape.rows;
  const size_t set_floats = size_t{rows.kv_heads} * rows.heads * rows.k_dim;
  const size_t key_bytes = rows.k_dim * ElementBytes(rows.type);
  const size_t value_bytes = RotatedRowBytes(shape.value);
  std::array<const std::byte*, kPieceRows> values;
  for (const AttentionRun& run : runs) {
    for (size_t begin = 0; begin < run.rows; begin += kPieceRows) {
      const size_t count = std::min(kPieceRows, run.rows - begin);
      for (size_t kv_head = 0; kv_head < rows.kv_heads; ++kv_head) {
        for (size_t i = 0; i < count; ++i) {
          values[i] = run.v + (begin + i) * run.v_stride + kv_head * value_bytes;
        }
        const KeyRun keys = {.k = run.k + begin * run.k_stride + kv_head * key_bytes,
                             .stride = run.k_stride,
                             .rows = static_cast<uint32_t>(count)};
        for (size_t done = 0; done < rows.heads; done += kHeadsMax) {
          const size_t head = kv_head * rows.heads + done;
          AttendPiece(shape, q + run.query_set * set_floats + head * rows.k_dim, keys,
                      std::span(values).first(count), head,
                      std::min<size_t>(kHeadsMax, rows.heads - done), state);
        }
      }
    }
  }
}

#if KVASIR_VECTOR_TARGET
template <class T>
void ToFloats(RowType type, const std::byte* row, size_t dims, float* floats) {
  size_t dim = 0;
  for (; dim + kLanes <= dims; dim += kLanes) {
    hn::StoreU(LoadRow<T>(row + dim * sizeof(T)), FloatTag(), floats + dim);
  }
  for (; dim < dims; ++dim) {
    floats[dim] = LoadElement(type, row, dim);
  }
}
#endif  // KVASIR_VECTOR_TARGET

void RowToFloatsTarget(RowType type, const std::byte* row, size_t dims, float* floats) {
#if KVASIR_VECTOR_TARGET
  switch (type) {
    case RowType::kF16:
      return ToFloats<hwy::float16_t>(type, row, dims, floats);
    case RowType::kBF16:
      return ToFloats<hwy::bfloat16_t>(type, row, dims, floats);
    case RowType::kF32:
      return ToFloats<float>(type, row, dims, floats);
    case RowType::kE4M3:
      break;
  }
#endif
  for (size_t dim = 0; dim < dims; ++dim) {
    floats[dim] = LoadElement(type, row, dim);
  }
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {
namespace {

constexpr uint32_t kTileRows = 64;

void CheckShape(const CodedAttention& shape) {
  KVASIR_CHECK(CheckRotatedRow(shape.value).ok() && shape.value.dims == shape.rows.v_dim,
               "codes of {} elements for values of {}", shape.value.dims, shape.rows.v_dim);
}

}  // namespace

HWY_EXPORT(AttendCodedTarget);
HWY_EXPORT(RowToFloatsTarget);

void AttendCodedRuns(const CodedAttention& shape, const float* q,
                     std::span<const AttentionRun> runs, AttentionState& state) {
  CheckShape(shape);
  HWY_DYNAMIC_DISPATCH(AttendCodedTarget)(shape, q, runs, state);
}

void AttendCodedTile(const CodedAttention& shape, const float* q, uint32_t queries,
                     const AttentionRun& run, std::span<const uint32_t> first,
                     std::span<const uint32_t> last, AttentionState& state) {
  CheckShape(shape);
  AttentionShape plain = shape.rows;
  plain.type = RowType::kF32;
  // Not Scratch(): AttendTile() takes that.
  thread_local std::vector<float> k, v;
  thread_local std::vector<uint32_t> from, to;
  k.resize(size_t{kTileRows} * plain.k_dim);
  v.resize(size_t{kTileRows} * plain.v_dim);
  from.resize(queries);
  to.resize(queries);
  for (uint32_t begin = 0; begin < run.rows; begin += kTileRows) {
    const uint32_t end = std::min(begin + kTileRows, run.rows);
    bool any = false;
    for (uint32_t t = 0; t < queries; ++t) {
      from[t] = std::clamp(first[t], begin, end) - begin;
      to[t] = std::max(from[t], std::clamp(last[t], begin, end) - begin);
      any |= from[t] < to[t];
    }
    if (!any) continue;
    for (uint32_t row = begin; row < end; ++row) {
      const size_t at = row - begin;
      HWY_DYNAMIC_DISPATCH(RowToFloatsTarget)
      (shape.rows.type, run.k + size_t{row} * run.k_stride, plain.k_dim, &k[at * plain.k_dim]);
      DecodeRotatedRow(shape.value, run.v + size_t{row} * run.v_stride, &v[at * plain.v_dim]);
    }
    const AttentionRun decoded = {.k = reinterpret_cast<const std::byte*>(k.data()),
                                  .v = reinterpret_cast<const std::byte*>(v.data()),
                                  .k_stride = plain.k_dim * 4,
                                  .v_stride = plain.v_dim * 4,
                                  .rows = end - begin};
    AttendTile(plain, q, queries, decoded, from, to, state);
  }
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
