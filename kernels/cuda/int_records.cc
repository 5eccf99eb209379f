#include "kernels/cuda/int_records.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/int_decode-inl.h"
#include "kernels/cuda/int_encode-inl.h"

namespace kvasir::kernels::cuda {
namespace {

constexpr uint32_t kHeadsMax = 1U << 12U;

absl::Status CheckShape(const RecordShape& shape, uint32_t kv_heads) {
  if (shape.codec != Codec::kInt8 && shape.codec != Codec::kInt4) {
    return InvalidArgument("codec of a record is neither int8 nor int4: codec={}",
                           static_cast<unsigned>(shape.codec));
  }
  KVASIR_RETURN_IF_ERROR(CheckRecordShape(shape));
  if (kv_heads == 0 || kv_heads > kHeadsMax) {
    return InvalidArgument("kv heads out of bounds: kv_heads={} min=1 max={}", kv_heads, kHeadsMax);
  }
  return absl::OkStatus();
}

template <class Records>
absl::Status CheckRecords(const RecordShape& shape, const Records& records) {
  KVASIR_RETURN_IF_ERROR(CheckSet("records", records.base != nullptr));
  if (reinterpret_cast<uintptr_t>(records.base) % sizeof(uint32_t) != 0) {
    return InvalidArgument("records are not aligned: multiple_of=4");
  }
  if (records.head_stride % sizeof(uint32_t) != 0 || records.head_stride < RecordBytes(shape)) {
    return InvalidArgument(
        "head stride of records out of bounds: head_stride={} min={} multiple_of=4",
        records.head_stride, RecordBytes(shape));
  }
  if (records.block_stride % sizeof(uint32_t) != 0) {
    return InvalidArgument("block stride of records out of bounds: block_stride={} multiple_of=4",
                           records.block_stride);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRecordEncoding(const RecordEncoding& encoding) {
  KVASIR_RETURN_IF_ERROR(CheckShape(encoding.shape, encoding.kv_heads));
  if (encoding.pairing < RopePairing::kInterleaved || encoding.pairing > RopePairing::kHalfSplit) {
    return InvalidArgument("pairing unknown: pairing={} max=1", static_cast<int>(encoding.pairing));
  }
  if (encoding.deltas != nullptr && encoding.table.pairs > encoding.shape.dims / 2) {
    return InvalidArgument("the table has more pairs than a row: pairs={} max={}",
                           encoding.table.pairs, encoding.shape.dims / 2);
  }
  if (encoding.blocks == 0) {
    return absl::OkStatus();
  }
  if (encoding.deltas != nullptr && encoding.table.pairs > 0) {
    KVASIR_RETURN_IF_ERROR(CheckSet("table.entries", encoding.table.entries != nullptr));
    KVASIR_RETURN_IF_ERROR(CheckSet("table.frequencies", encoding.table.frequencies != nullptr));
  }
  KVASIR_RETURN_IF_ERROR(CheckSet("from", encoding.from.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckRecords(encoding.shape, encoding.to));
  const uint64_t shared_bytes = uint64_t{4} * EncodeSharedFloats(encoding.shape);
  if (shared_bytes > kEncodeSharedBytesMax) {
    return InvalidArgument("record takes too much shared memory: bytes={} max={}", shared_bytes,
                           kEncodeSharedBytesMax);
  }
  KVASIR_RETURN_IF_ERROR(CheckGrid("blocks", encoding.blocks, 1));
  return CheckGrid("records", EncodeBlocks(encoding), 1);
}

absl::Status CheckRecordDecoding(const RecordDecoding& decoding) {
  KVASIR_RETURN_IF_ERROR(CheckShape(decoding.shape, decoding.kv_heads));
  KVASIR_RETURN_IF_ERROR(CheckRowType(decoding.type));
  if (decoding.blocks == 0) {
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(CheckRecords(decoding.shape, decoding.from));
  KVASIR_RETURN_IF_ERROR(CheckSet("to", decoding.to.IsSet()));
  KVASIR_RETURN_IF_ERROR(CheckGrid("blocks", decoding.blocks, 1));
  return CheckGrid("chunks of eight elements", DecodeChunks(decoding), kThreads);
}

}  // namespace kvasir::kernels::cuda
