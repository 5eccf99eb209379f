// Memory, rows and clocks of the kernel benchmarks. Thread-safe.
#ifndef KVASIR_BENCH_KERNEL_DATA_H_
#define KVASIR_BENCH_KERNEL_DATA_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace kvasir::bench {

// Processor time of this thread: other programs on the machine do not count. Seconds.
double ThreadSeconds();

struct FreeMemory {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte[], FreeMemory>;

// Memory on huge pages where the kernel has them, as the daemon's own: else page walks are
// measured. All of it is written.
Memory AllocateMemory(size_t bytes);

// f16 rows of normal values; random enough for speed, cheap enough for gigabytes.
Memory MakeRows(size_t bytes);

std::vector<float> MakeQueries(size_t count);

// Reads the memory once, as fast as one thread can: one stream, vectors of the machine's best
// instruction set (what is less than two of them at the end is left out). The sum of all words.
uint64_t ReadOnce(const std::byte* from, size_t bytes);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_KERNEL_DATA_H_
