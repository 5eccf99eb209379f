// Rows of bench_gpu about kernels: each beside cudaMemcpyAsync of the same kept bytes, device to
// device.
#ifndef KVASIR_BENCH_GPU_KERNELS_H_
#define KVASIR_BENCH_GPU_KERNELS_H_

#include <cstdint>

#include <absl/status/status.h>

#include "bench/report.h"

namespace kvasir::bench {

// Adds its rows; takes 1.6 GiB of device memory and a second or so for 20 rounds. Not thread-safe.
// Errors: those of the runtime.
absl::Status RunKernelRows(uint32_t rounds, Report& report);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_GPU_KERNELS_H_
