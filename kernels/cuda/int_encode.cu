#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/int_encode-inl.h"
#include "kernels/cuda/int_records.h"
#include "kernels/cuda/row_type_launch.h"

namespace kvasir::kernels::cuda {
namespace {

template <RowType kType>
__global__ void __launch_bounds__(kThreads) EncodeKernel(RecordEncoding encoding) {
  extern __shared__ float shared[];
  const EncodeBlock in(encoding, blockIdx.x, shared);
  EncodeLoad(in, kType, threadIdx.x);
  __syncthreads();
  EncodeTurn(in, threadIdx.x);
  __syncthreads();
  EncodeScale(in, threadIdx.x);
  __syncthreads();
  EncodeCodes(in, threadIdx.x);
}

template <RowType kType>
absl::Status Launch(const RecordEncoding& encoding, unsigned blocks, unsigned bytes,
                    CUstream_st* stream) {
  // More than 48 KiB of shared memory has to be asked for, by each kernel. The bound is the
  // function's, of all threads: always the same, so that nobody lowers it for another.
  const cudaError_t granted = cudaFuncSetAttribute(
      EncodeKernel<kType>, cudaFuncAttributeMaxDynamicSharedMemorySize, kEncodeSharedBytesMax);
  if (granted != cudaSuccess) {
    return CudaStatus("shared memory of encode_records", granted);
  }
  EncodeKernel<kType><<<blocks, kThreads, bytes, stream>>>(encoding);
  return LaunchStatus("encode_records");
}

}  // namespace

absl::Status EncodeRecords(const RecordEncoding& encoding, CUstream_st* stream) {
  if (absl::Status checked = CheckRecordEncoding(encoding); !checked.ok() || encoding.blocks == 0) {
    return checked;
  }
  const auto blocks = static_cast<unsigned>(EncodeBlocks(encoding));
  const auto bytes = static_cast<unsigned>(EncodeSharedFloats(encoding.shape) * sizeof(float));
  absl::Status status;
  ForRowType(encoding.shape.type, [&](auto type) {
    status.Update(Launch<decltype(type)::value>(encoding, blocks, bytes, stream));
  });
  return status;
}

}  // namespace kvasir::kernels::cuda
