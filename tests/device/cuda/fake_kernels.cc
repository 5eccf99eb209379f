// Kernels that the processor walks through, thread by thread, in the order of a fake stream: which
// rows and lists device/cuda launches them with is seen without a GPU.
#include "base/status_macros.h"
#include "kernels/cuda/copy_rows-inl.h"
#include "kernels/cuda/rotate_rows-inl.h"
#include "tests/device/cuda/fake_stream.h"

namespace kvasir::kernels::cuda {
namespace {

template <class Body>
void Walk(CUstream_st* stream, uint64_t blocks, const Body& body) {
  device::PutOnFakeStream(stream, [blocks, body] {
    for (uint64_t block = 0; block < blocks; ++block) {
      for (uint32_t thread = 0; thread < kThreads; ++thread) body(block, thread);
    }
  });
}

}  // namespace

absl::Status CheckCopyRowsCode() { return absl::OkStatus(); }

absl::Status CopyRows(const RowCopy& copy, CUstream_st* stream) {
  KVASIR_RETURN_IF_ERROR(CheckRowCopy(copy));
  Walk(stream, CopyBlocks(copy),
       [copy](uint64_t block, uint32_t thread) { CopyRowsThread(copy, block, thread); });
  return absl::OkStatus();
}

absl::Status RotateRows(const RowRotation& rotation, CUstream_st* stream) {
  KVASIR_RETURN_IF_ERROR(CheckRowRotation(rotation));
  Walk(stream, RotateBlocks(rotation), [rotation](uint64_t block, uint32_t thread) {
    RotateRowsThread(rotation, rotation.shape.type, block, thread);
  });
  return absl::OkStatus();
}

}  // namespace kvasir::kernels::cuda
