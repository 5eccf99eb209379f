// Records: the K rows or the V rows of one kv head of a block of slots, encoded as a whole.
//
// A record holds `rows` rows of `dims` elements of one (block, layer, kv head, plane) and
// everything that is needed to read it. Its size depends on the shape alone. Formats, byte by byte:
// docs/encodings.md. Sources: KIVI (arXiv:2402.02750) for int8 and int4; the token-mixed code is
// Kvasir's own: a Hadamard transform over the tokens of a block, one scale a channel, Lloyd-Max
// code books, and as many bit planes for each channel as it earns.
//
// Scores are linear in the rows of K and the output is linear in the rows of V, so attention reads
// the codes in place: rows are never made. Thread-safe on different destinations; working memory
// belongs to the thread and is reused. Records may lie at any address.
//
// No function here reads outside RecordBytes() bytes of a record, whatever they hold; but numbers
// made of a damaged record mean nothing, so ask CheckRecord() before a record from elsewhere is
// used. Those in kept groups are not from elsewhere: only the daemon's mapping of their extents can
// write (peers get a descriptor that is open for reading, sealed with F_SEAL_FUTURE_WRITE), and the
// daemon never reads them back.
#ifndef KVASIR_KERNELS_ENCODING_RECORD_H_
#define KVASIR_KERNELS_ENCODING_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/status/status.h>

#include "kernels/attention.h"
#include "kernels/gather.h"

namespace kvasir::kernels {

enum class Codec : uint8_t {
  kAsWritten = 0,   // [row][dim] in the type of the source
  kInt8 = 1,        // K: scale and zero for each channel over the rows; V: for each row and group
  kInt4 = 2,        // the same with 4 bits
  kTokenMixed = 3,  // adaptive bit planes
};

enum class RecordPlane : uint8_t { kKey = 0, kValue = 1 };

inline constexpr uint32_t kRecordDimsMax = 256;
inline constexpr uint32_t kRecordRowsMax = 64;
inline constexpr uint32_t kCodePlanesMax = 6;  // of a channel

struct RecordShape {
  Codec codec = Codec::kAsWritten;
  RecordPlane plane = RecordPlane::kKey;
  RowType type = RowType::kF16;  // of the source rows; kAsWritten: of the record too
  uint32_t rows = 64;            // 32 or 64
  uint32_t dims = 64;            // a multiple of 8, at most kRecordDimsMax
  uint32_t code_planes = 0;  // kTokenMixed: bit planes of all channels together, dims/2 to 6*dims
  friend bool operator==(const RecordShape&, const RecordShape&) = default;
};

// Errors: kInvalidArgument naming the field and its bound.
absl::Status CheckRecordShape(const RecordShape& shape);

// REQUIRES: CheckRecordShape(shape) holds, here and below.
uint64_t RecordBytes(const RecordShape& shape);

// Keys turned on the way (RoPE): row i by deltas[i] positions. `rope` describes one kv head.
struct RecordTurn {
  RopeShape rope;
  std::span<const int64_t> deltas;  // as many as sources; empty: no row is turned
};

// Gathers, turns and encodes in one pass. sources: 1 to shape.rows rows of shape.dims elements, any
// address; slots behind the last source are filled so that the others stay as good as can be, and
// hold nothing. weights: kTokenMixed keys, what an error of a channel costs: dims numbers >= 0, or
// empty for all alike. Codes are of finite numbers: what is not a number counts as 0, what is
// beyond f16 as its largest, so that a damaged row harms no other one of its block beyond its share
// of the scales; kAsWritten copies rows that are not turned bit for bit. Sources may be written by
// others meanwhile: what is encoded is what was read at one time, though f16 elements that are no
// finite numbers are read anew.
void EncodeRecord(const RecordShape& shape, std::span<const std::byte* const> sources,
                  const RecordTurn& turn, std::span<const float> weights, std::byte* record);

// Errors: kDataLoss naming the field and its bound.
absl::Status CheckRecord(const RecordShape& shape, const std::byte* record);

// REQUIRES: the plane is kKey. scores[query][row] = q[query] . key of row. q: [queries][dims],
// scores: [queries][rows].
void RecordScores(const RecordShape& shape, const std::byte* record, const float* q,
                  uint32_t queries, float* scores);

// REQUIRES: the plane is kValue. sums[query] += sum over rows of weights[query][row] * value of
// row. sums: [queries][dims].
void AddRecordValues(const RecordShape& shape, const std::byte* record, const float* weights,
                     uint32_t queries, float* sums);

// rows: [rows][dims].
void DecodeRecord(const RecordShape& shape, const std::byte* record, float* rows);

// The same functions in plain scalar code: the yardstick of the tests. Records are equal byte for
// byte.
namespace scalar {
void EncodeRecord(const RecordShape& shape, std::span<const std::byte* const> sources,
                  const RecordTurn& turn, std::span<const float> weights, std::byte* record);
void RecordScores(const RecordShape& shape, const std::byte* record, const float* q,
                  uint32_t queries, float* scores);
void AddRecordValues(const RecordShape& shape, const std::byte* record, const float* weights,
                     uint32_t queries, float* sums);
void DecodeRecord(const RecordShape& shape, const std::byte* record, float* rows);
}  // namespace scalar

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_RECORD_H_
