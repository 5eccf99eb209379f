#include "kernels/scratch.h"

#include "base/check.h"

#include <hwy/aligned_allocator.h>

namespace kvasir::kernels {
namespace {

struct Buffer {
  hwy::AlignedFreeUniquePtr<float[]> data;
  size_t size = 0;
};

}  // namespace

float* Scratch(size_t floats) {
  thread_local Buffer buffer;
  if (buffer.size < floats) {
    buffer.data = hwy::AllocateAligned<float>(floats);
    KVASIR_CHECK(buffer.data != nullptr, "no memory for {} floats of scratch", floats);
    buffer.size = floats;
  }
  return buffer.data.get();
}

}  // namespace kvasir::kernels
