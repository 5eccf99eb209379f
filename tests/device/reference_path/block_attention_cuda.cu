#include <cuda_runtime_api.h>

#include "kernels/row_convert.h"
#include "tests/device/reference_path/block_attention.h"

namespace kvasir::device::testing {
namespace {

constexpr uint32_t kThreads = 128;

// A thread block has a query head. Made to be read, not to be fast.
__global__ void __launch_bounds__(kThreads) AttendKernel(BlockAttention attention) {
  __shared__ float weights[kRowsMax];
  __shared__ float most;
  __shared__ float sum;
  const uint32_t kv_head = blockIdx.x / attention.heads;
  const uint32_t half = attention.kv_heads * attention.dim;  // elements of a row's keys
  const float* q = attention.q + uint64_t{blockIdx.x} * attention.dim;
  const auto key_of = [&](uint32_t row) {
    const uint64_t block = attention.table[row / attention.block_rows];
    const uint64_t place = block * attention.block_rows + row % attention.block_rows;
    return reinterpret_cast<const uint16_t*>(attention.pool) + place * 2 * half +
           uint64_t{kv_head} * attention.dim;
  };
  for (uint32_t row = threadIdx.x; row < attention.rows; row += kThreads) {
    const uint16_t* key = key_of(row);
    float score = 0;
    for (uint32_t i = 0; i < attention.dim; ++i) score += q[i] * kernels::F16ToFloat(key[i]);
    weights[row] = score * attention.scale;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    most = weights[0];
    for (uint32_t row = 1; row < attention.rows; ++row) most = fmaxf(most, weights[row]);
  }
  __syncthreads();
  for (uint32_t row = threadIdx.x; row < attention.rows; row += kThreads) {
    weights[row] = expf(weights[row] - most);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0;
    for (uint32_t row = 0; row < attention.rows; ++row) sum += weights[row];
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < attention.dim; i += kThreads) {
    float total = 0;
    for (uint32_t row = 0; row < attention.rows; ++row) {
      total += weights[row] * kernels::F16ToFloat(key_of(row)[half + i]);
    }
    attention.out[uint64_t{blockIdx.x} * attention.dim + i] = total / sum;
  }
}

}  // namespace

absl::Status Attend(const BlockAttention& attention) {
  AttendKernel<<<attention.kv_heads * attention.heads, kThreads>>>(attention);
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::UnavailableError(cudaGetErrorString(error));
}

}  // namespace kvasir::device::testing
