// OffsetAllocator behind a C interface, with the whole of the workload on this side of it, so that
// its calls are compiled as its own project would compile them.
//
// Not part of the build: ./dev bench alloc compiles it behind the algorithm's own text, which it
// fetches, into a library that is kept in the cache. A size of one unit is one group: then each
// request fits the bin of its size, which is the best case of this allocator.
#include <cstddef>
#include <cstdint>

#include "bench/alloc_workload.h"

#define KVASIR_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct OffsetPool {
  using Held = Allocation;
  explicit OffsetPool(uint32_t groups) : allocator(groups, 2 * groups + 2) {}
  Held Allocate() { return allocator.allocate(1); }
  void Free(const Held& one) { allocator.free(one); }
  Allocator allocator;
};

struct OffsetRun {
  OffsetRun(const uint32_t* order, uint32_t groups, uint32_t held)
      : pool(groups), workload(pool, order, groups, held) {}
  OffsetPool pool;
  kvasir::bench::AllocWorkload<OffsetPool> workload;
};

}  // namespace

KVASIR_EXPORT void* kvasir_peer_start(const uint32_t* order, uint32_t groups, uint32_t held) {
  return new OffsetRun(order, groups, held);
}
KVASIR_EXPORT void kvasir_peer_steps(void* run, const uint32_t* places, size_t count) {
  static_cast<OffsetRun*>(run)->workload.FreeAndAllocate(places, count);
}
KVASIR_EXPORT void kvasir_peer_end(void* run) { delete static_cast<OffsetRun*>(run); }
