// Records of rows as they were written: what record.h does for Codec::kAsWritten.
//
// [row][dim] in the type of the source. Everything means what it does in record.h, but a row that
// is not turned is copied bit for bit, whatever it holds. Thread-safe on different destinations; no
// memory of their own.
#ifndef KVASIR_KERNELS_ENCODING_ROWS_RECORD_H_
#define KVASIR_KERNELS_ENCODING_ROWS_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/encoding/record.h"

namespace kvasir::kernels::rows {

uint64_t Bytes(const RecordShape& shape);

// Rows behind the last source are zeros.
void Encode(const RecordShape& shape, std::span<const std::byte* const> sources,
            const RecordTurn& turn, std::byte* record);

void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores);
// Rows at either end whose weights are all zero are not looked at: they may hold anything.
void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums);
void Decode(const RecordShape& shape, const std::byte* record, float* to);

namespace scalar {
void Encode(const RecordShape& shape, std::span<const std::byte* const> sources,
            const RecordTurn& turn, std::byte* record);
void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores);
void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums);
void Decode(const RecordShape& shape, const std::byte* record, float* to);
}  // namespace scalar

}  // namespace kvasir::kernels::rows

#endif  // KVASIR_KERNELS_ENCODING_ROWS_RECORD_H_
