#include <algorithm>

#include "kernels/cuda/top_k.h"

// CUB is slow to compile: no other file includes it.
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/top_k-inl.h"

#include <cub/device/device_radix_sort.cuh>

namespace kvasir::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kThreads)
    OrderKernel(ScoreSelection selection, uint32_t* orders, uint32_t* indices) {
  OrderThread(selection, blockIdx.x, threadIdx.x, orders, indices);
}

// Where things lie in the scratch memory: four lists and what CUB needs.
struct Scratch {
  explicit Scratch(const ScoreSelection& selection)
      : list_bytes(CeilDivide(selection.size * sizeof(uint32_t), kScratchAlignment) *
                   kScratchAlignment),
        base(selection.scratch) {}
  uint32_t* List(uint32_t index) const {
    return reinterpret_cast<uint32_t*>(base + index * list_bytes);
  }
  uint64_t list_bytes;
  std::byte* base;
};

cudaError_t SortScores(const ScoreSelection& selection, void* memory, size_t& bytes,
                       CUstream_st* stream) {
  const Scratch at(selection);
  return cub::DeviceRadixSort::SortPairsDescending(memory, bytes, at.List(0), at.List(1),
                                                   at.List(2), at.List(3),
                                                   static_cast<int>(selection.size), 0, 32, stream);
}

cudaError_t SortIndices(const ScoreSelection& selection, void* memory, size_t& bytes,
                        CUstream_st* stream) {
  const Scratch at(selection);
  return cub::DeviceRadixSort::SortKeys(memory, bytes, at.List(3), selection.out,
                                        static_cast<int>(selection.k), 0, 32, stream);
}

absl::StatusOr<size_t> SortBytes(const ScoreSelection& selection) {
  size_t scores = 0;
  size_t indices = 0;
  cudaError_t error = SortScores(selection, nullptr, scores, nullptr);
  if (error == cudaSuccess) {
    error = SortIndices(selection, nullptr, indices, nullptr);
  }
  if (error != cudaSuccess) {
    return CudaStatus("scratch of top_k", error);
  }
  return std::max(scores, indices);
}

}  // namespace

absl::StatusOr<uint64_t> TopKScratch(const ScoreSelection& selection) {
  if (absl::Status checked = CheckSelectionSize(selection); !checked.ok()) {
    return checked;
  }
  const absl::StatusOr<size_t> bytes = SortBytes(selection);
  if (!bytes.ok()) {
    return bytes.status();
  }
  return Scratch(selection).list_bytes * 4 + *bytes;
}

absl::Status TopK(const ScoreSelection& selection, CUstream_st* stream) {
  if (absl::Status checked = CheckScoreSelection(selection); !checked.ok() || selection.k == 0) {
    return checked;
  }
  absl::StatusOr<size_t> bytes = SortBytes(selection);
  if (!bytes.ok()) {
    return bytes.status();
  }
  const Scratch at(selection);
  const auto blocks = static_cast<unsigned>(CeilDivide(selection.size, kThreads));
  OrderKernel<<<blocks, kThreads, 0, stream>>>(selection, at.List(0), at.List(2));
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) {
    error = SortScores(selection, at.List(4), *bytes, stream);
  }
  if (error == cudaSuccess) {
    error = SortIndices(selection, at.List(4), *bytes, stream);
  }
  return CudaStatus("top_k", error);
}

}  // namespace kvasir::kernels::cuda
