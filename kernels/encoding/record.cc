#include "kernels/encoding/record.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "kernels/encoding/block_rows.h"
#include "kernels/encoding/int_record.h"
#include "kernels/encoding/rows_record.h"
#include "kernels/encoding/tm_record.h"
#include "kernels/scratch.h"

namespace kvasir::kernels {
namespace {

void CheckSources(const RecordShape& shape, std::span<const std::byte* const> sources,
                  const RecordTurn& turn, std::span<const float> weights) {
  KVASIR_CHECK(!sources.empty() && sources.size() <= shape.rows, "{} sources of a record of {}",
               sources.size(), shape.rows);
  KVASIR_CHECK(turn.deltas.empty() || turn.deltas.size() == sources.size(),
               "{} deltas of {} sources", turn.deltas.size(), sources.size());
  KVASIR_CHECK(weights.empty() || weights.size() == shape.dims, "{} weights of {} channels",
               weights.size(), shape.dims);
}

float* Tile(const RecordShape& shape) {
  return Scratch(size_t{shape.rows} * shape.dims + ints::kTileSlack);
}

}  // namespace

absl::Status CheckRecordShape(const RecordShape& shape) {
  if (shape.codec > Codec::kTokenMixed) {
    return InvalidArgument("codec of a record unknown: codec={} max={}",
                           static_cast<unsigned>(shape.codec),
                           static_cast<unsigned>(Codec::kTokenMixed));
  }
  if (shape.plane > RecordPlane::kValue) {
    return InvalidArgument("plane of a record unknown: plane={} max={}",
                           static_cast<unsigned>(shape.plane),
                           static_cast<unsigned>(RecordPlane::kValue));
  }
  if (shape.type < RowType::kF16 || shape.type > RowType::kE4M3) {
    return InvalidArgument("row type of a record unknown: type={} max={}",
                           static_cast<int>(shape.type), static_cast<int>(RowType::kE4M3));
  }
  if (shape.rows != 32 && shape.rows != 64) {
    return InvalidArgument("rows of a record are neither 32 nor 64: rows={}", shape.rows);
  }
  if (shape.dims == 0 || shape.dims % 8 != 0 || shape.dims > kRecordDimsMax) {
    return InvalidArgument("dims of a record out of bounds: dims={} min=8 max={} multiple_of=8",
                           shape.dims, kRecordDimsMax);
  }
  const uint32_t least = shape.dims / 2;
  const uint32_t most = shape.dims * kCodePlanesMax;
  if (shape.codec == Codec::kTokenMixed &&
      (shape.code_planes < least || shape.code_planes > most)) {
    return InvalidArgument("code planes of a record out of bounds: code_planes={} min={} max={}",
                           shape.code_planes, least, most);
  }
  return absl::OkStatus();
}

uint64_t RecordBytes(const RecordShape& shape) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return rows::Bytes(shape);
    case Codec::kTokenMixed:
      return tm::Bytes(shape);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::Bytes(shape);
}

void EncodeRecord(const RecordShape& shape, std::span<const std::byte* const> sources,
                  const RecordTurn& turn, std::span<const float> weights, std::byte* record) {
  CheckSources(shape, sources, turn, weights);
  if (shape.codec == Codec::kAsWritten) {
    return rows::Encode(shape, sources, turn, record);
  }
  float* tile = Tile(shape);
  const bool turns =
      std::any_of(turn.deltas.begin(), turn.deltas.end(), [](int64_t delta) { return delta != 0; });
  // Rows that this way refuses are read anew, and nothing of what was read is used.
  if (shape.codec != Codec::kTokenMixed && shape.type == RowType::kF16 && !turns &&
      ints::EncodeHalves(shape, sources, reinterpret_cast<std::byte*>(tile), record)) {
    return;
  }
  LoadBlockRows(shape.type, shape.dims, sources, turn, tile);
  const auto count = static_cast<uint32_t>(sources.size());
  if (shape.codec == Codec::kTokenMixed) {
    tm::Encode(shape, tile, count, weights, record);
  } else {
    ints::Encode(shape, tile, count, record);
  }
}

absl::Status CheckRecord(const RecordShape& shape, const std::byte* record) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return absl::OkStatus();
    case Codec::kTokenMixed:
      return tm::Check(shape, record);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::Check(shape, record);
}

void RecordScores(const RecordShape& shape, const std::byte* record, const float* q,
                  uint32_t queries, float* scores) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return rows::Scores(shape, record, q, queries, scores);
    case Codec::kTokenMixed:
      return tm::Scores(shape, record, q, queries, scores);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::Scores(shape, record, q, queries, scores);
}

void AddRecordValues(const RecordShape& shape, const std::byte* record, const float* weights,
                     uint32_t queries, float* sums) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return rows::AddValues(shape, record, weights, queries, sums);
    case Codec::kTokenMixed:
      return tm::AddValues(shape, record, weights, queries, sums);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::AddValues(shape, record, weights, queries, sums);
}

void DecodeRecord(const RecordShape& shape, const std::byte* record, float* to) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return rows::Decode(shape, record, to);
    case Codec::kTokenMixed:
      return tm::Decode(shape, record, to);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::Decode(shape, record, to);
}

namespace scalar {

void EncodeRecord(const RecordShape& shape, std::span<const std::byte* const> sources,
                  const RecordTurn& turn, std::span<const float> weights, std::byte* record) {
  CheckSources(shape, sources, turn, weights);
  if (shape.codec == Codec::kAsWritten) {
    return rows::scalar::Encode(shape, sources, turn, record);
  }
  float* tile = Tile(shape);
  scalar::LoadBlockRows(shape.type, shape.dims, sources, turn, tile);
  const auto count = static_cast<uint32_t>(sources.size());
  if (shape.codec == Codec::kTokenMixed) {
    tm::scalar::Encode(shape, tile, count, weights, record);
  } else {
    ints::scalar::Encode(shape, tile, count, record);
  }
}

void RecordScores(const RecordShape& shape, const std::byte* record, const float* q,
                  uint32_t queries, float* scores) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return rows::scalar::Scores(shape, record, q, queries, scores);
    case Codec::kTokenMixed:
      return tm::scalar::Scores(shape, record, q, queries, scores);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::scalar::Scores(shape, record, q, queries, scores);
}

void AddRecordValues(const RecordShape& shape, const std::byte* record, const float* weights,
                     uint32_t queries, float* sums) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return rows::scalar::AddValues(shape, record, weights, queries, sums);
    case Codec::kTokenMixed:
      return tm::scalar::AddValues(shape, record, weights, queries, sums);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::scalar::AddValues(shape, record, weights, queries, sums);
}

void DecodeRecord(const RecordShape& shape, const std::byte* record, float* to) {
  switch (shape.codec) {
    case Codec::kAsWritten:
      return rows::scalar::Decode(shape, record, to);
    case Codec::kTokenMixed:
      return tm::scalar::Decode(shape, record, to);
    case Codec::kInt8:
    case Codec::kInt4:
      break;
  }
  return ints::scalar::Decode(shape, record, to);
}

}  // namespace scalar
}  // namespace kvasir::kernels
