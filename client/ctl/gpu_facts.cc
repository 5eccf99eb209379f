#include "client/ctl/gpu_facts.h"

#include <system_error>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <dlfcn.h>

namespace kvasir::ctl {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kGpusMax = 64;
constexpr uint32_t kNvidia = 0x10de;
constexpr uint32_t kDisplayClass = 0x03;  // sound and switches of NVIDIA's have other classes

// The number in a file of sysfs, such as 0x10de; 0: none.
uint32_t HexIn(const fs::path& path) {
  std::ifstream file(path);
  uint32_t value = 0;
  file >> std::hex >> value;
  return value;
}

void ReadPciBus(const std::string& root, GpuFacts* facts) {
  std::error_code error;
  fs::directory_iterator entry(root + "/sys/bus/pci/devices", error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    facts->pci_bus = true;
    if (HexIn(entry->path() / "vendor") == kNvidia &&
        HexIn(entry->path() / "class") >> 16 == kDisplayClass) {
      ++facts->pci_devices;
    }
  }
}

// "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build ...": the
// first word that is made of numbers and has a point.
std::string KernelDriver(const std::string& root) {
  std::ifstream file(root + "/proc/driver/nvidia/version");
  std::string line;
  std::getline(file, line);
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    const bool number = std::all_of(word.begin(), word.end(),
                                    [](char c) { return (c >= '0' && c <= '9') || c == '.'; });
    if (number && word.find('.') != std::string::npos) return word;
  }
  return line.empty() ? "" : "of an unknown version";
}

bool CanLoadCudaDriver() {
  void* library = ::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return false;
  ::dlclose(library);
  return true;
}

}  // namespace

GpuFacts GatherGpuFacts(const std::string& root) {
  GpuFacts facts;
  ReadPciBus(root, &facts);
  while (facts.device_files < kGpusMax &&
         fs::exists(root + "/dev/nvidia" + std::to_string(facts.device_files))) {
    ++facts.device_files;
  }
  facts.kernel_driver = KernelDriver(root);
  facts.cuda_driver = CanLoadCudaDriver();
  facts.runtime = device::CudaRuntimeVersion();
  facts.gpus = device::LookAtCudaGpus();
  return facts;
}

}  // namespace kvasir::ctl
