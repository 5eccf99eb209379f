// Where things lie in an int8 or int4 record, for the files that read and write them. Pure.
// Byte by byte: docs/encodings.md.
#ifndef KVASIR_KERNELS_ENCODING_INT_LAYOUT_H_
#define KVASIR_KERNELS_ENCODING_INT_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/encoding/record.h"
#include "kernels/host_device.h"
#include "kernels/row_convert.h"

namespace kvasir::kernels {

// Channels of a value row that share a scale and a zero.
constexpr size_t kIntGroupDims = 64;
// Rows of a key record that lie side by side: 32-bit words of a run.
constexpr size_t kIntRunRows = 16;
constexpr size_t kIntGroupsMax = kRecordDimsMax / kIntGroupDims;

// Scales, zeros and 32-bit words of codes, one array behind the other.
//
// Keys: word w of run p holds, at element i, the code of row w + 16 * (i % strips), channel
// p + stretch * (i / strips): lanes are rows, and the scale of a channel goes into the query.
// Values: word c of piece o holds, at element i, the code of row o * per_word + i, channel c: lanes
// are channels, and the scale of a row goes into its weight.
struct IntLayout {
  KVASIR_HOST_DEVICE explicit IntLayout(const RecordShape& shape)
      : key(shape.plane == RecordPlane::kKey),
        bits(shape.codec == Codec::kInt8 ? 8 : 4),
        rows(shape.rows),
        dims(shape.dims),
        levels((1U << bits) - 1),
        per_word(32 / bits),
        groups((dims + kIntGroupDims - 1) / kIntGroupDims),
        scales(key ? dims : rows * groups),
        strips(rows / kIntRunRows),
        stretch(dims / (per_word / strips)) {}

  KVASIR_HOST_DEVICE size_t ZerosAt() const { return scales * 2; }
  KVASIR_HOST_DEVICE size_t CodesAt() const { return scales * 4; }
  KVASIR_HOST_DEVICE size_t Bytes() const { return CodesAt() + rows * dims * bits / 8; }

  // The scale and zero of an element of the record.
  KVASIR_HOST_DEVICE size_t ScaleOf(size_t row, size_t dim) const {
    return key ? dim : dim / kIntGroupDims * rows + row;
  }
  // Its word, counted from the first, and how far its code is shifted there.
  KVASIR_HOST_DEVICE size_t WordOf(size_t row, size_t dim) const {
    return key ? dim % stretch * kIntRunRows + row % kIntRunRows : row / per_word * dims + dim;
  }
  KVASIR_HOST_DEVICE size_t ShiftOf(size_t row, size_t dim) const {
    return bits * (key ? dim / stretch * strips + row / kIntRunRows : row % per_word);
  }

  bool key;
  size_t bits, rows, dims;
  size_t levels;    // the largest code
  size_t per_word;  // codes
  size_t groups;    // of a value row
  size_t scales;    // of the record; as many zeros
  size_t strips;    // runs of 16 rows
  size_t stretch;   // words hold the channels p, p + stretch, ...
};

KVASIR_HOST_DEVICE inline uint16_t LoadHalf(const std::byte* from, size_t index) {
  uint16_t bits = 0;
  std::memcpy(&bits, from + index * sizeof bits, sizeof bits);
  return bits;
}

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_INT_LAYOUT_H_
