// int8 and int4 records: what record.h does for Codec::kInt8 and kInt4.
//
// Source: KIVI (arXiv:2402.02750). Keys have a scale and a zero for each channel over the rows of
// the record, values for each row and group of 64 channels (all channels where there are fewer).
// zero is the least value rounded down to f16, scale a (2^bits - 1)-th of the distance from there
// to the largest, rounded up to f16, so that every code fits and no element is off by more than
// half a scale. Thread-safe on different destinations; no memory of their own.
#ifndef KVASIR_KERNELS_ENCODING_INT_RECORD_H_
#define KVASIR_KERNELS_ENCODING_INT_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/status/status.h>

#include "kernels/encoding/record.h"

namespace kvasir::kernels::ints {

// REQUIRES, here and below: shape is of kInt8 or kInt4, and CheckRecordShape(shape) holds.
uint64_t Bytes(const RecordShape& shape);

// Floats behind the last row of a tile that may be read; what they hold does not matter.
inline constexpr size_t kTileSlack = 16;

// tile: [shape.rows][shape.dims] and kTileSlack more. The first `count` rows are encoded, 1 <=
// count <= rows: finite and at most 65504. The others are overwritten, in the tile too: they become
// code 0, which is the zero of the channel in keys and 0 in values.
void Encode(const RecordShape& shape, float* tile, size_t count, std::byte* record);

// The same for a whole record of f16 rows that are not turned, straight from where they lie. tile:
// memory for as many f16 elements, [shape.rows][shape.dims] and kTileSlack more, at any address.
// False: nothing was written to the record, these rows need the way through floats (fewer rows,
// dimensions that are no multiple of 16, elements that are no finite numbers, no vector code).
bool EncodeHalves(const RecordShape& shape, std::span<const std::byte* const> sources,
                  std::byte* tile, std::byte* record);

// Errors: kDataLoss naming the field and its bound.
absl::Status Check(const RecordShape& shape, const std::byte* record);

// As in record.h.
void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores);
void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums);
void Decode(const RecordShape& shape, const std::byte* record, float* rows);

namespace scalar {
void Encode(const RecordShape& shape, float* tile, size_t count, std::byte* record);
void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores);
void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums);
void Decode(const RecordShape& shape, const std::byte* record, float* rows);
}  // namespace scalar

}  // namespace kvasir::kernels::ints

#endif  // KVASIR_KERNELS_ENCODING_INT_RECORD_H_
