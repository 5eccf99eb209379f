// What doctor says of GPUs: each of them, or the first thing that is missing on the way to one.
#include <algorithm>

#include "base/bytes.h"
#include "base/error.h"
#include "client/ctl/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir::ctl {
namespace {

Diagnosis OfGpu(size_t index, const device::CudaGpu& gpu) {
  const device::DeviceFacts& facts = gpu.facts;
  std::string text = fmt::format("{}, {}, {}, compute capability {}.{}, driver for CUDA {}",
                                 facts.name, facts.uuid, HumanBytes(facts.total_bytes),
                                 facts.compute_major, facts.compute_minor, facts.driver);
  const std::string name = fmt::format("GPU {}", index);
  if (!gpu.missing.empty()) {
    return {Health::kWarn, name, fmt::format("{}; lacks {}", text, fmt::join(gpu.missing, ", ")),
            "no device pool on this GPU: host memory only"};
  }
  text += fmt::format(", granularity {}", HumanBytes(facts.granularity_bytes));
  if (!facts.read_only_registration) {
    text += "; cannot register host memory read-only: sealed extents are registered for writing";
  }
  return {Health::kOk, name, text, ""};
}

// CUDA shows none, though something of one is there.
Diagnosis Missing(const GpuFacts& facts) {
  const uint32_t count = std::max(facts.pci_devices, facts.device_files);
  const std::string seen = count == 0
                               ? "no device seen"
                               : fmt::format("{} NVIDIA device{}", count, count == 1 ? "" : "s");
  if (facts.kernel_driver.empty() && !facts.cuda_driver) {
    return {Health::kWarn, "GPU", seen + ", but no driver", "install NVIDIA's driver"};
  }
  const std::string driver =
      facts.kernel_driver.empty() ? "the driver" : "driver " + facts.kernel_driver;
  if (facts.device_files == 0) {
    return {Health::kWarn, "GPU", fmt::format("{}, {}, but no /dev/nvidia*", seen, driver),
            "load the driver's modules; in a container, pass the GPU in"};
  }
  if (!facts.cuda_driver) {
    return {Health::kWarn, "GPU", fmt::format("{}, {}, but libcuda.so.1 is missing", seen, driver),
            "install the driver's libcuda.so.1 (Debian: libcuda1)"};
  }
  if (facts.runtime.empty()) {
    return {Health::kWarn, "GPU", fmt::format("{}, {}, but this build has no CUDA", seen, driver),
            "build it with CUDA: ./dev build cuda"};
  }
  const std::string reason = MessageOf(facts.gpus.status());
  const bool old = reason.find("cudaErrorInsufficientDriver") != std::string::npos ||
                   reason.find("too old") != std::string::npos;
  return {Health::kWarn, "GPU", fmt::format("{}, {}: {}", seen, driver, reason),
          old ? fmt::format("the driver is too old for CUDA {}, which this build is made with: "
                            "install a newer one",
                            facts.runtime)
              : "see what the driver has logged: dmesg"};
}

}  // namespace

std::vector<Diagnosis> DiagnoseGpus(const GpuFacts& facts) {
  if (facts.gpus.ok()) {
    std::vector<Diagnosis> list;
    for (const device::CudaGpu& gpu : *facts.gpus) list.push_back(OfGpu(list.size(), gpu));
    return list;
  }
  if (facts.pci_devices == 0 && facts.device_files == 0 && facts.kernel_driver.empty()) {
    const char* const text = facts.pci_bus ? "none: no NVIDIA device on the PCI bus"
                                           : "none: no PCI bus is shown, and no /dev/nvidia*";
    return {{Health::kOk, "GPU",
             fmt::format("{}{}; host memory only", text,
                         facts.cuda_driver ? ", though libcuda.so.1 is installed" : ""),
             ""}};
  }
  return {Missing(facts)};
}

}  // namespace kvasir::ctl
