// Rows of V coded one by one: for caches that free rows one at a time, where a block's record
// cannot.
//
// A row is turned by a Hadamard matrix over its channels with random signs, which makes its
// elements about normal whatever they were; then one 8-bit logarithmic norm and a Lloyd-Max code of
// 2 or 3 bits for each element hold it. The output of attention is linear in the rows of V, so
// weighted rows are added as they are, and the sum is turned back once for all of them. Bytes:
// docs/encodings.md. Thread-safe on different destinations; no memory of its own. Rows may lie at
// any address.
#ifndef KVASIR_KERNELS_ENCODING_ROW_CODE_H_
#define KVASIR_KERNELS_ENCODING_ROW_CODE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/status/status.h>

namespace kvasir::kernels {

struct RotatedRow {
  uint32_t dims = 64;  // a power of two, 16 to 256
  uint32_t bits = 2;   // 2 or 3
  friend bool operator==(const RotatedRow&, const RotatedRow&) = default;
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckRotatedRow(const RotatedRow& shape);

// REQUIRES: CheckRotatedRow(shape) holds, here and below. Every byte string of that size is a row.
constexpr uint64_t RotatedRowBytes(const RotatedRow& shape) {
  return 1 + uint64_t{shape.dims} * shape.bits / 8;
}

// Elements that are not numbers count as 0, those beyond +-65504 as that.
void EncodeRotatedRow(const RotatedRow& shape, const float* row, std::byte* code);

void DecodeRotatedRow(const RotatedRow& shape, const std::byte* code, float* row);

// sums[query] += sum over i of weights[query][i] * the row at rows[i]. weights: [queries][rows],
// sums: [queries][dims].
void AddRotatedRows(const RotatedRow& shape, std::span<const std::byte* const> rows,
                    const float* weights, uint32_t queries, float* sums);

namespace scalar {
void AddRotatedRows(const RotatedRow& shape, std::span<const std::byte* const> rows,
                    const float* weights, uint32_t queries, float* sums);
}  // namespace scalar

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_ROW_CODE_H_
