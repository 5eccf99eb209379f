// bench_gpu_copies: the copies of RunCopyRows() on each GPU, or on host memory where there is none.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/status_macros.h"
#include "bench/gpu_copies.h"
#include "bench/report.h"
#include "device/cuda/cuda_devices.h"
#include "device/host/host_device.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

absl::Status Run(Report& report, const CopyBenchOptions& options, bool host) {
  auto devices = device::OpenCudaDevices();
  if (!devices.ok() || host) {
    if (!host) fmt::print("no GPU, so host memory: {}\n", devices.status().ToString());
    KVASIR_ASSIGN_OR_RETURN(const auto memory,
                            device::HostDevice::Create({.total_bytes = uint64_t{1} << 30}));
    return RunCopyRows(report, *memory, options);
  }
  for (const std::unique_ptr<device::Device>& gpu : *devices) {
    KVASIR_RETURN_IF_ERROR(RunCopyRows(report, *gpu, options));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  CLI::App app("copies between a device and registered host memory");
  kvasir::bench::CopyBenchOptions options;
  bool host = false;
  app.add_option("--groups", options.groups, "block groups of 2 MiB");
  app.add_option("--rounds", options.rounds, "of all variants, interleaved");
  app.add_flag("--host", host, "host memory, though there is a GPU");
  CLI11_PARSE(app, argc, argv);
  kvasir::bench::Report report;
  absl::Status status = kvasir::bench::Run(report, options, host);
  std::fputs(report.ToTable().c_str(), stdout);
  const char* const path = std::getenv("KVASIR_BENCH_JSON");
  if (status.ok() && path != nullptr) status = report.Write(path);
  if (status.ok()) return 0;
  fmt::print(stderr, "bench_gpu_copies: {}\n", status.ToString());
  return 1;
}
