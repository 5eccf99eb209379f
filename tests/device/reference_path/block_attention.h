// Attention of one token's queries over rows that a block table names: on host memory by
// kernels/attention.h, on a GPU by a plain kernel. Two libraries define it, as the test's device
// is.
#ifndef KVASIR_TESTS_DEVICE_REFERENCE_PATH_BLOCK_ATTENTION_H_
#define KVASIR_TESTS_DEVICE_REFERENCE_PATH_BLOCK_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include <absl/status/status.h>

namespace kvasir::device::testing {

inline constexpr uint32_t kRowsMax = 4096;  // their scores lie in a thread block's shared memory

// All addresses are the device's. A row is fp16, [key or value][kv_head][dim].
struct BlockAttention {
  const std::byte* pool = nullptr;
  const uint32_t* table = nullptr;  // row r lies in block table[r / block_rows] of the pool
  uint32_t block_rows = 1;
  uint32_t rows = 0;  // 1 to kRowsMax
  uint32_t kv_heads = 1;
  uint32_t heads = 1;  // query heads that share a kv head
  uint32_t dim = 1;
  float scale = 1.0F;
  const float* q = nullptr;  // [kv_head][head][dim]
  float* out = nullptr;      // likewise
};

// Waits for the end. Errors: kUnavailable naming the runtime's.
absl::Status Attend(const BlockAttention& attention);

// The same over rows that lie anywhere, as a sequence's views name them. The lists are the
// device's, too.
struct RowAttention {
  const std::byte* const* keys = nullptr;    // [rows]: fp16, [kv_head][dim]
  const std::byte* const* values = nullptr;  // likewise
  uint32_t rows = 0;                         // 1 to kRowsMax
  uint32_t kv_heads = 1;
  uint32_t heads = 1;
  uint32_t dim = 1;
  float scale = 1.0F;
  const float* q = nullptr;  // [kv_head][head][dim]
  float* out = nullptr;      // likewise
};

absl::Status Attend(const RowAttention& attention);

}  // namespace kvasir::device::testing

#endif  // KVASIR_TESTS_DEVICE_REFERENCE_PATH_BLOCK_ATTENTION_H_
