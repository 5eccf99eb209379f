// bench_gpu: what the GPU's part costs, as ratios to limits measured in the same run.
#include <cstdio>
#include <cstdlib>
#include <string>

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "bench/gpu_copies.h"
#include "bench/gpu_kernels.h"
#include "bench/report.h"
#include "device/cuda/cuda_devices.h"
#include "kernels/cuda/cuda_status.h"

#include <CLI/CLI.hpp>

namespace kvasir::bench {
namespace {

// Name, driver and runtime: without them no number says anything.
void PrintMachine() {
  cudaDeviceProp properties{};
  int driver = 0;
  int runtime = 0;
  if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess &&
      cudaDriverGetVersion(&driver) == cudaSuccess &&
      cudaRuntimeGetVersion(&runtime) == cudaSuccess) {
    std::printf("GPU: %s, driver for CUDA %d.%d, runtime %d.%d\n", properties.name, driver / 1000,
                driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  }
}

int Main(int argc, char** argv) {
  std::string json = "build/bench/gpu.json";
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) json = path;
  uint32_t rounds = 20;
  CLI::App app("Kernels on the GPU, beside copies of the same bytes.");
  app.add_option("--rounds", rounds, "rounds of each row")->check(CLI::Range(6, 1000));
  CLI11_PARSE(app, argc, argv);
  absl::Status status = kernels::cuda::CheckGpu();
  Report report;
  if (status.ok()) {
    PrintMachine();
    status = RunKernelRows(rounds, report);
    const auto devices = device::OpenCudaDevices();
    if (devices.ok()) {
      status.Update(RunCopyRows(report, *devices->front(), {.rounds = rounds}));
    } else {
      status.Update(devices.status());
    }
  }
  if (!report.rows().empty()) {
    std::fputs(report.ToTable().c_str(), stdout);
    status.Update(report.Write(json));
  }
  if (!status.ok()) std::fprintf(stderr, "bench_gpu: %s\n", MessageOf(status).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) { return kvasir::bench::Main(argc, argv); }
