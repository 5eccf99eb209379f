#include "bench/kernel_data.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <random>

#include "kernels/row_convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/kernel_data.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what it is compiled for.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kvasir::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

uint64_t ReadTarget(const std::byte* from, size_t bytes) {
  const hn::CappedTag<uint64_t, 8> d;
  const size_t step = hn::Lanes(d);
  const auto* words = reinterpret_cast<const uint64_t*>(from);
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  for (size_t at = 0; at + 2 * step <= bytes / 8; at += 2 * step) {
    even = hn::Add(even, hn::LoadU(d, words + at));
    odd = hn::Add(odd, hn::LoadU(d, words + at + step));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
}

}  // namespace kvasir::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::bench {

HWY_EXPORT(ReadTarget);

uint64_t ReadOnce(const std::byte* from, size_t bytes) {
  return HWY_DYNAMIC_DISPATCH(ReadTarget)(from, bytes);
}

double ThreadSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

Memory AllocateMemory(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20U;
  const size_t rounded = (bytes + kHuge - 1) / kHuge * kHuge;
  Memory memory(static_cast<std::byte*>(std::aligned_alloc(kHuge, rounded)));
  madvise(memory.get(), rounded, MADV_HUGEPAGE);
  std::memset(memory.get(), 1, rounded);
  return memory;
}

Memory MakeRows(size_t bytes) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(4099);
  std::generate(values.begin(), values.end(), [&] { return kernels::FloatToF16(normal(random)); });
  Memory rows = AllocateMemory(bytes);
  for (size_t at = 0; at < bytes; at += values.size() * 2) {
    std::memcpy(rows.get() + at, values.data(), std::min(values.size() * 2, bytes - at));
  }
  return rows;
}

std::vector<float> MakeQueries(size_t count) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> q(count);
  std::generate(q.begin(), q.end(), [&] { return normal(random); });
  return q;
}

}  // namespace kvasir::bench
#endif  // HWY_ONCE
