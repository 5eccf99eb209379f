#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/int_decode-inl.h"
#include "kernels/cuda/int_records.h"
#include "kernels/cuda/row_type_launch.h"

namespace kvasir::kernels::cuda {
namespace {

template <RowType kType>
__global__ void __launch_bounds__(kThreads) DecodeKernel(RecordDecoding decoding) {
  DecodeThread(decoding, kType, blockIdx.x, threadIdx.x);
}

}  // namespace

absl::Status DecodeRecords(const RecordDecoding& decoding, CUstream_st* stream) {
  if (absl::Status checked = CheckRecordDecoding(decoding); !checked.ok() || decoding.blocks == 0) {
    return checked;
  }
  const auto blocks = static_cast<unsigned>(CeilDivide(DecodeChunks(decoding), kThreads));
  ForRowType(decoding.type, [&](auto type) {
    DecodeKernel<decltype(type)::value><<<blocks, kThreads, 0, stream>>>(decoding);
  });
  return LaunchStatus("decode_records");
}

}  // namespace kvasir::kernels::cuda
