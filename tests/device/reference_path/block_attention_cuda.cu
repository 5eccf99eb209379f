#include <cuda_runtime_api.h>

#include "kernels/row_convert.h"
#include "tests/device/reference_path/block_attention.h"

namespace kvasir::device::testing {
namespace {

constexpr uint32_t kThreads = 128;

// A thread block has a query head. Made to be read, not to be fast. `key_of` and `value_of` give
// the kv head's elements of a row.
template <class Attention, class KeyOf, class ValueOf>
__device__ void AttendHead(const Attention& attention, const KeyOf& key_of,
                           const ValueOf& value_of) {
  __shared__ float weights[kRowsMax];
  __shared__ float most;
  __shared__ float sum;
  const float* q = attention.q + uint64_t{blockIdx.x} * attention.dim;
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
      total += weights[row] * kernels::F16ToFloat(value_of(row)[i]);
    }
    attention.out[uint64_t{blockIdx.x} * attention.dim + i] = total / sum;
  }
}

__global__ void __launch_bounds__(kThreads) AttendBlocksKernel(BlockAttention attention) {
  const uint32_t kv_head = blockIdx.x / attention.heads;
  const uint32_t half = attention.kv_heads * attention.dim;  // elements of a row's keys
  const auto key_of = [&](uint32_t row) {
    const uint64_t block = attention.table[row / attention.block_rows];
    const uint64_t place = block * attention.block_rows + row % attention.block_rows;
    return reinterpret_cast<const uint16_t*>(attention.pool) + place * 2 * half +
           uint64_t{kv_head} * attention.dim;
  };
  AttendHead(attention, key_of, [&](uint32_t row) { return key_of(row) + half; });
}

__global__ void __launch_bounds__(kThreads) AttendRowsKernel(RowAttention attention) {
  const uint64_t first = uint64_t{blockIdx.x / attention.heads} * attention.dim;
  const auto head_of = [first](const std::byte* row) {
    return reinterpret_cast<const uint16_t*>(row) + first;
  };
  AttendHead(
      attention, [&](uint32_t row) { return head_of(attention.keys[row]); },
      [&](uint32_t row) { return head_of(attention.values[row]); });
}

absl::Status WaitForKernel() {
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::UnavailableError(cudaGetErrorString(error));
}

}  // namespace

absl::Status Attend(const BlockAttention& attention) {
  AttendBlocksKernel<<<attention.kv_heads * attention.heads, kThreads>>>(attention);
  return WaitForKernel();
}

absl::Status Attend(const RowAttention& attention) {
  AttendRowsKernel<<<attention.kv_heads * attention.heads, kThreads>>>(attention);
  return WaitForKernel();
}

}  // namespace kvasir::device::testing
