// The GPU, by the launches that the daemon uses, on a stream of its own.
#include <cuda_runtime_api.h>

#include "base/check.h"
#include "kernels/cuda/cuda_status.h"
#include "tests/kernels/cuda/machine.h"

namespace kvasir::kernels::cuda::machine {
namespace {

void Must(cudaError_t code) { KVASIR_CHECK(code == cudaSuccess, "{}", cudaGetErrorString(code)); }

CUstream_st* Stream() {
  static CUstream_st* const stream = [] {
    cudaStream_t made = nullptr;
    Must(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    return made;
  }();
  return stream;
}

absl::Status Wait(absl::Status launched) {
  return launched.ok() ? CudaStatus("run", cudaStreamSynchronize(Stream())) : launched;
}

}  // namespace

std::string Missing() { return std::string(CheckGpu().message()); }

std::byte* Allocate(size_t bytes) {
  void* at = nullptr;
  Must(cudaMalloc(&at, bytes + 1));
  return static_cast<std::byte*>(at);
}
void Free(std::byte* at) { Must(cudaFree(at)); }
void Upload(std::byte* to, const void* from, size_t bytes) {
  Must(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}
void Download(void* to, const std::byte* from, size_t bytes) {
  Must(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

absl::Status Execute(const RowCopy& copy) { return Wait(CopyRows(copy, Stream())); }
absl::Status Execute(const PlaneMove& move) { return Wait(MovePlanes(move, Stream())); }
absl::Status Execute(const RowRotation& rotation) { return Wait(RotateRows(rotation, Stream())); }
absl::Status Execute(const RecordEncoding& encoding) {
  return Wait(EncodeRecords(encoding, Stream()));
}
absl::Status Execute(const RecordDecoding& decoding) {
  return Wait(DecodeRecords(decoding, Stream()));
}

absl::Status Execute(const RowConversion& conversion) {
  return Wait(ConvertRows(conversion, Stream()));
}
absl::Status Execute(const KeyDots& dots) { return Wait(DotKeys(dots, Stream())); }
absl::Status Execute(const ScorePooling& pooling) { return Wait(PoolScores(pooling, Stream())); }

absl::Status Execute(const KeyMass& mass) {
  KeyMass with = mass;
  with.scratch = reinterpret_cast<float*>(Allocate(MassScratch(mass) * sizeof(float)));
  absl::Status status = Wait(MassOfWindow(with, Stream()));
  Free(reinterpret_cast<std::byte*>(with.scratch));
  return status;
}

absl::Status Execute(const ScoreSelection& selection) {
  const absl::StatusOr<uint64_t> bytes = TopKScratch(selection);
  if (!bytes.ok()) {
    return bytes.status();
  }
  ScoreSelection with = selection;
  with.scratch = Allocate(*bytes);
  absl::Status status = Wait(TopK(with, Stream()));
  Free(with.scratch);
  return status;
}

}  // namespace kvasir::kernels::cuda::machine
