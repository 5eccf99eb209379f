// The CPU walks the grid: blocks in order, and in each phase of a block its threads in order.
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/copy_rows-inl.h"
#include "kernels/cuda/int_decode-inl.h"
#include "kernels/cuda/int_encode-inl.h"
#include "kernels/cuda/move_planes-inl.h"
#include "kernels/cuda/rotate_rows-inl.h"
#include "tests/kernels/cuda/machine.h"

namespace kvasir::kernels::cuda::machine {
namespace {

// Calls body(block, thread) for all threads of all blocks.
template <class Body>
void Walk(uint64_t blocks, const Body& body) {
  for (uint64_t block = 0; block < blocks; ++block) {
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      body(block, thread);
    }
  }
}

// Calls phase(thread) for all threads of a block.
template <class Phase>
void WalkBlock(const Phase& phase) {
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    phase(thread);
  }
}

}  // namespace

std::string Missing() { return {}; }

// Exact sizes, so that a sanitizer sees what lies outside.
std::byte* Allocate(size_t bytes) {
  void* at = nullptr;
  if (posix_memalign(&at, 256, bytes) != 0) {
    std::abort();
  }
  return static_cast<std::byte*>(at);
}
void Free(std::byte* at) { std::free(at); }
void Upload(std::byte* to, const void* from, size_t bytes) {
  if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}
void Download(void* to, const std::byte* from, size_t bytes) {
  if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}

absl::Status Execute(const RowCopy& copy) {
  absl::Status checked = CheckRowCopy(copy);
  if (checked.ok()) {
    Walk(CopyBlocks(copy),
         [&](uint64_t block, uint32_t thread) { CopyRowsThread(copy, block, thread); });
  }
  return checked;
}

absl::Status Execute(const PlaneMove& move) {
  absl::Status checked = CheckPlaneMove(move);
  if (checked.ok()) {
    Walk(PlaneBlocks(move),
         [&](uint64_t block, uint32_t thread) { MovePlanesThread(move, block, thread); });
  }
  return checked;
}

absl::Status Execute(const RowRotation& rotation) {
  absl::Status checked = CheckRowRotation(rotation);
  if (checked.ok()) {
    Walk(RotateBlocks(rotation), [&](uint64_t block, uint32_t thread) {
      RotateRowsThread(rotation, rotation.shape.type, block, thread);
    });
  }
  return checked;
}

absl::Status Execute(const RecordEncoding& encoding) {
  absl::Status checked = CheckRecordEncoding(encoding);
  for (uint64_t block = 0; checked.ok() && block < EncodeBlocks(encoding); ++block) {
    std::vector<float> shared(EncodeSharedFloats(encoding.shape));
    const EncodeBlock in(encoding, block, shared.data());
    WalkBlock([&](uint32_t thread) { EncodeLoad(in, encoding.shape.type, thread); });
    WalkBlock([&](uint32_t thread) { EncodeTurn(in, thread); });
    WalkBlock([&](uint32_t thread) { EncodeScale(in, thread); });
    WalkBlock([&](uint32_t thread) { EncodeCodes(in, thread); });
  }
  return checked;
}

absl::Status Execute(const RecordDecoding& decoding) {
  absl::Status checked = CheckRecordDecoding(decoding);
  if (checked.ok()) {
    Walk(CeilDivide(DecodeChunks(decoding), kThreads), [&](uint64_t block, uint32_t thread) {
      DecodeThread(decoding, decoding.type, block, thread);
    });
  }
  return checked;
}

}  // namespace kvasir::kernels::cuda::machine
