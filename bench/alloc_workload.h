// The work that block allocators are measured by: of a half or nearly full pool a few random groups
// are freed, as when a sequence ends, and as many are allocated. What is free lies scattered: the
// pool was full before. One text for all of them, and
// nothing of ours in it, so that another project's code can be compiled with it in an environment
// of its own (bench/peers).
#ifndef KVASIR_BENCH_ALLOC_WORKLOAD_H_
#define KVASIR_BENCH_ALLOC_WORKLOAD_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvasir::bench {

// Pool has a type Held, `Held Allocate()` and `void Free(const Held&)`. It must have room for
// `count` groups and outlive this. Not thread-safe.
template <typename Pool>
class AllocWorkload {
 public:
  // `order`: the numbers below `count`, shuffled: the groups at the first `held` of them stay.
  AllocWorkload(Pool& pool, const uint32_t* order, uint32_t count, uint32_t held) : pool_(pool) {
    std::vector<typename Pool::Held> all(count);
    for (auto& one : all) one = pool_.Allocate();
    for (uint32_t i = 0; i < held; ++i) held_.push_back(all[order[i]]);
    for (uint32_t i = held; i < count; ++i) pool_.Free(all[order[i]]);
  }
  ~AllocWorkload() {
    for (const auto& one : held_) pool_.Free(one);
  }
  AllocWorkload(const AllocWorkload&) = delete;
  AllocWorkload& operator=(const AllocWorkload&) = delete;

  // Groups that are freed before as many are allocated.
  static constexpr size_t kBurst = 32;

  // Frees what is at kBurst of `places` and allocates it anew, until all were. REQUIRES: each below
  // `held`, count is a multiple of kBurst, and no place is twice in one burst.
  void FreeAndAllocate(const uint32_t* places, size_t count) {
    for (const uint32_t* burst = places; burst != places + count; burst += kBurst) {
      for (size_t i = 0; i < kBurst; ++i) pool_.Free(held_[burst[i]]);
      for (size_t i = 0; i < kBurst; ++i) held_[burst[i]] = pool_.Allocate();
    }
  }

 private:
  Pool& pool_;
  std::vector<typename Pool::Held> held_;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_ALLOC_WORKLOAD_H_
