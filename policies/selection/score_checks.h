// Checks that all selections share. Pure, thread-safe.
#ifndef KVASIR_POLICIES_SELECTION_SCORE_CHECKS_H_
#define KVASIR_POLICIES_SELECTION_SCORE_CHECKS_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include <absl/status/statusor.h>

#include "base/error.h"
#include "kernels/row_convert.h"
#include "kernels/scores.h"

namespace kvasir {

// Entries are numbered in 32 bits.
inline constexpr uint64_t kMaxEntries = std::numeric_limits<uint32_t>::max();
// A key of all kv heads; its bytes must fit the 32 bits of a stride.
inline constexpr uint64_t kMaxKeyElements = uint64_t{1} << 24U;

// kInvalidArgument naming the first score that is NaN or infinite. O(scores).
inline absl::Status CheckFinite(std::span<const float> scores, const char* what) {
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!std::isfinite(scores[i])) {
      return InvalidArgument("{} is not finite: index={} value={}", what, i, scores[i]);
    }
  }
  return absl::OkStatus();
}

// kInvalidArgument where `value` is outside [min, max].
inline absl::Status CheckBounds(const char* field, uint64_t value, uint64_t min, uint64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return InvalidArgument("{} out of bounds: {}={} min={} max={}", field, field, value, min, max);
}

// kInvalidArgument where a pooling kernel is even or outside [1, max].
inline absl::Status CheckKernel(uint32_t kernel, uint32_t max) {
  if (kernel % 2 == 1 && kernel <= max) return absl::OkStatus();
  return InvalidArgument("kernel must be odd and in bounds: kernel={} min=1 max={}", kernel, max);
}

// Number of keys in `runs`. kInvalidArgument for an empty shape, a run without memory, a stride
// shorter than a key, and more keys than kMaxEntries.
inline absl::StatusOr<uint64_t> CountKeys(const kernels::KeyShape& shape,
                                          std::span<const kernels::KeyRun> runs) {
  const uint64_t elements = uint64_t{shape.kv_heads} * shape.dim;
  if (elements == 0 || elements > kMaxKeyElements) {
    return InvalidArgument("elements of a key out of bounds: kv_heads={} dim={} min=1 max={}",
                           shape.kv_heads, shape.dim, kMaxKeyElements);
  }
  const uint64_t key_bytes = elements * kernels::ElementBytes(shape.type);
  uint64_t keys = 0;
  for (const kernels::KeyRun& run : runs) {
    if (run.rows > 0 && run.k == nullptr) {
      return InvalidArgument("run of keys without memory: rows={}", run.rows);
    }
    if (run.rows > 1 && run.stride < key_bytes) {
      return InvalidArgument("stride is shorter than a key: stride={} min={}", run.stride,
                             key_bytes);
    }
    keys += run.rows;
    if (keys > kMaxEntries) break;
  }
  absl::Status status = CheckBounds("keys", keys, 1, kMaxEntries);
  if (!status.ok()) return status;
  return keys;
}

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SELECTION_SCORE_CHECKS_H_
