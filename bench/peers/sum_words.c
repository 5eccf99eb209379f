/* The sum of all words: how a driver of another project's client reads what it was given, as fast as
   the benchmark itself reads (kernel_data.h). Compiled by ./dev for those in Python and Go. */
#include <stddef.h>
#include <stdint.h>

__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t kvasir_sum_words(
    const uint64_t* from, size_t words) {
  uint64_t sum = 0;
  for (size_t i = 0; i < words; ++i) sum += from[i];
  return sum;
}
