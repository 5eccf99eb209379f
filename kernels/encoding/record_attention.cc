// AttendRecords: a record's codes are scored, weighed and summed while they are in the caches.
// AttendRecordTile: a record becomes floats once, for all queries.
#include "kernels/encoding/record_attention.h"

#include <algorithm>

#include "base/check.h"

#include <hwy/aligned_allocator.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/encoding/record_attention.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/copy_row-inl.h"
#include "kernels/row_load-inl.h"
#include "kernels/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

// Query heads whose scores are held at once.
constexpr size_t kHeadsMax = 16;

// Adds a record of keys and one of values to `heads` query heads from `head` on.
void AttendHeads(const RecordAttention& shape, const float* q, const RecordRun& run,
                 const std::byte* k, const std::byte* v, size_t head, size_t heads,
                 AttentionState& state) {
  HWY_ALIGN float weights[kHeadsMax * kRecordRowsMax];
  RecordScores(shape.k, k, q, static_cast<uint32_t>(heads), weights);
  float* acc = state.acc.data() + head * shape.v.dims;
  for (size_t i = 0; i < heads; ++i) {
    const float keep = Softmax(weights + i * shape.k.rows, shape.k.rows, run.first, run.last,
                               shape.scale, state.max[head + i], state.sum[head + i]);
    if (keep != 1.0F) {
      float* sums = acc + i * shape.v.dims;
      for (size_t dim = 0; dim < shape.v.dims; ++dim) {
        sums[dim] *= keep;
      }
    }
  }
  AddRecordValues(shape.v, v, weights, static_cast<uint32_t>(heads), acc);
}

void AttendTarget(const RecordAttention& shape, const float* q, std::span<const RecordRun> runs,
                  AttentionState& state) {
  const uint64_t k_bytes = RecordBytes(shape.k);
  const uint64_t v_bytes = RecordBytes(shape.v);
  const size_t set_floats = size_t{shape.kv_heads} * shape.heads * shape.k.dims;
  for (size_t at = 0; at < runs.size(); ++at) {
    const RecordRun& run = runs[at];
    if (run.first >= run.last) {
      continue;
    }
    for (size_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      const std::byte* k = run.k + kv_head * k_bytes;
      const std::byte* v = run.v + kv_head * v_bytes;
      const std::byte* next = kv_head + 1 < shape.kv_heads ? k + k_bytes
                              : at + 1 < runs.size()       ? runs[at + 1].k
                                                           : nullptr;
      PrefetchRow(v, v_bytes);
      if (next != nullptr) {
        PrefetchRow(next, k_bytes);
      }
      for (size_t done = 0; done < shape.heads; done += kHeadsMax) {
        const size_t head = kv_head * shape.heads + done;
        const size_t heads = std::min<size_t>(kHeadsMax, shape.heads - done);
        AttendHeads(shape, q + run.query_set * set_floats + head * shape.k.dims, run, k, v, head,
                    heads, state);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(AttendTarget);

void AttendRecords(const RecordAttention& shape, const float* q, std::span<const RecordRun> runs,
                   AttentionState& state) {
  KVASIR_CHECK(shape.k.rows == shape.v.rows, "keys of {} rows, values of {}", shape.k.rows,
               shape.v.rows);
  KVASIR_CHECK(state.max.size() == size_t{shape.kv_heads} * shape.heads &&
                   state.acc.size() == state.max.size() * shape.v.dims,
               "a state of {} query heads for {} x {}", state.max.size(), shape.kv_heads,
               shape.heads);
  for (const RecordRun& run : runs) {
    KVASIR_CHECK(run.last <= shape.k.rows, "rows up to {} of {}", run.last, shape.k.rows);
  }
  HWY_DYNAMIC_DISPATCH(AttendTarget)(shape, q, runs, state);
}

void AttendRecordTile(const RecordAttention& shape, const float* q, uint32_t queries,
                      const RecordRun& run, std::span<const uint32_t> first,
                      std::span<const uint32_t> last, AttentionState& state) {
  KVASIR_CHECK(shape.k.rows == shape.v.rows, "keys of {} rows, values of {}", shape.k.rows,
               shape.v.rows);
  // Not Scratch(): AttendTile() takes that.
  struct Rows {
    HWY_ALIGN float k[size_t{kRecordRowsMax} * kRecordDimsMax];
    HWY_ALIGN float v[size_t{kRecordRowsMax} * kRecordDimsMax];
  };
  thread_local const hwy::AlignedUniquePtr<Rows> rows = hwy::MakeUniqueAligned<Rows>();
  DecodeRecord(shape.k, run.k, rows->k);
  DecodeRecord(shape.v, run.v, rows->v);
  const AttentionShape plain = {.type = RowType::kF32,
                                .heads = shape.heads,
                                .k_dim = shape.k.dims,
                                .v_dim = shape.v.dims,
                                .scale = shape.scale};
  const AttentionRun decoded = {.k = reinterpret_cast<const std::byte*>(rows->k),
                                .v = reinterpret_cast<const std::byte*>(rows->v),
                                .k_stride = shape.k.dims * static_cast<uint32_t>(sizeof(float)),
                                .v_stride = shape.v.dims * static_cast<uint32_t>(sizeof(float)),
                                .rows = shape.k.rows};
  AttendTile(plain, q, queries, decoded, first, last, state);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
