// The token-mixed code: the functions of record.h for Codec::kTokenMixed, behind the gather.
//
// tile: [rows][dims] of floats within +-kTileMax, as LoadBlockRows() leaves them. Everything else
// means what it does in record.h. Bytes, order of sums and reasons: docs/encodings.md. Thread-safe
// on different destinations. Up to 80 KiB of stack.
#ifndef KVASIR_KERNELS_ENCODING_TM_RECORD_H_
#define KVASIR_KERNELS_ENCODING_TM_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/status/status.h>

#include "kernels/encoding/record.h"

namespace kvasir::kernels::tm {

uint64_t Bytes(const RecordShape& shape);

// The first `filled` rows of the tile, 1 to shape.rows; those behind are not read. weights:
// shape.dims numbers or none; what is not a number >= 0 counts as 0.
void Encode(const RecordShape& shape, const float* tile, uint32_t filled,
            std::span<const float> weights, std::byte* record);

// Errors: kDataLoss naming the field and its bound.
absl::Status Check(const RecordShape& shape, const std::byte* record);

// Of a record whose planes do not add up, scores are those of the mean, sums stay as they are, and
// rows are the mean.
void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores);
void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums);
void Decode(const RecordShape& shape, const std::byte* record, float* rows);

// The same in plain code: records byte for byte, numbers up to rounding.
namespace scalar {
void Encode(const RecordShape& shape, const float* tile, uint32_t filled,
            std::span<const float> weights, std::byte* record);
void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores);
void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums);
void Decode(const RecordShape& shape, const std::byte* record, float* rows);
}  // namespace scalar

}  // namespace kvasir::kernels::tm

#endif  // KVASIR_KERNELS_ENCODING_TM_RECORD_H_
