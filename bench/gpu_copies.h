// Copies between a device and registered host memory, and what stands around them: rows of a
// report.
#ifndef KVASIR_BENCH_GPU_COPIES_H_
#define KVASIR_BENCH_GPU_COPIES_H_

#include <cstdint>

#include <absl/status/status.h>

#include "bench/report.h"
#include "device/device.h"

namespace kvasir::bench {

struct CopyBenchOptions {
  uint32_t groups = 64;  // of the shape of Llama-3-8B: 2 MiB each; twice as much on the device
  uint32_t rounds = 21;  // of all variants, interleaved
};

// Adds rows for each direction: contiguous groups and transposed ones beside the best single copy
// of the same run; then creating, mapping and unmapping an extent, and the time from a request to
// its first layer and to all of them. Each row names the device, and whether it is host memory.
// Errors: of the device; kFailedPrecondition where a copy did not arrive.
absl::Status RunCopyRows(Report& report, device::Device& device, const CopyBenchOptions& options);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_GPU_COPIES_H_
