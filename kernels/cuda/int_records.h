// int8 and int4 records on the device: many blocks in one launch, turned on the way, and back to
// rows. The format is that of kernels/encoding/int_record.h, byte for byte.
//
// Source: KIVI (arXiv:2402.02750, section 3), RoPE as in rotate_rows.h. Asynchronous, thread-safe,
// as copy_rows.h. Encoding reads every element once and keeps a record's rows in shared memory as
// floats, up to 68 KiB; decoding reads every code once.
#ifndef KVASIR_KERNELS_CUDA_INT_RECORDS_H_
#define KVASIR_KERNELS_CUDA_INT_RECORDS_H_

#include <cstddef>
#include <cstdint>

#include <absl/status/status.h>

#include "kernels/cuda/rope_table.h"
#include "kernels/cuda/rows.h"
#include "kernels/encoding/record.h"

namespace kvasir::kernels::cuda {

// Where records lie: that of block b and kv head h at base + b * block_stride + h * head_stride.
// All three are multiples of 4, head_stride at least RecordBytes().
template <class Byte>
struct BasicRecords {
  Byte* base = nullptr;
  uint64_t block_stride = 0;
  uint64_t head_stride = 0;

  KVASIR_HOST_DEVICE Byte* At(uint64_t block, uint32_t head) const {
    return base + block * block_stride + head * head_stride;
  }
};

// Rows to records, as EncodeRecord(): row i of block b is from.At(b * shape.rows + i), its kv head
// h head_bytes behind that of h - 1.
struct RecordEncoding {
  RecordShape shape = {};  // kInt8 or kInt4
  uint32_t kv_heads = 1;
  uint64_t blocks = 0;  // 0: nothing happens
  RowSource from = {};  // addresses of elements: multiples of their size
  const uint32_t* counts =
      nullptr;  // [blocks]: rows, 1 to shape.rows; null: all. Others are not read
  const int64_t* deltas = nullptr;  // [blocks][shape.rows]; null: no row is turned
  RopePairing pairing = RopePairing::kInterleaved;
  RopeTable table = {};  // with deltas: of at most shape.dims / 2 pairs
  BasicRecords<std::byte> to = {};
};

// Records to rows of `type`, as DecodeRecord() and a conversion (row_convert.h): row i of block b
// to to.At(b * shape.rows + i), heads as above.
struct RecordDecoding {
  RecordShape shape = {};  // kInt8 or kInt4
  uint32_t kv_heads = 1;
  uint64_t blocks = 0;  // 0: nothing happens
  BasicRecords<const std::byte> from = {};
  const uint32_t* counts = nullptr;  // [blocks]; null: all. Other rows are not written
  RowType type = RowType::kF16;
  RowTarget to = {};
};

// Errors: kInvalidArgument naming the field and its bound. What lies in device memory is not
// looked at: a count beyond shape.rows counts as shape.rows.
absl::Status CheckRecordEncoding(const RecordEncoding& encoding);
absl::Status CheckRecordDecoding(const RecordDecoding& decoding);

// Errors: those of the check; kUnavailable when the runtime refuses the launch.
absl::Status EncodeRecords(const RecordEncoding& encoding, CUstream_st* stream);
absl::Status DecodeRecords(const RecordDecoding& decoding, CUstream_st* stream);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_INT_RECORDS_H_
