// doctor on GPUs: each step on the way to one, missing; and what made-up hosts show.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "client/ctl/doctor.h"

namespace kvasir::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

device::CudaGpu Gpu() {
  return {.facts = {.name = "NVIDIA H100 80GB HBM3",
                    .uuid = "GPU-01",
                    .kind = device::DeviceKind::kCuda,
                    .total_bytes = 80 * kGiB,
                    .granularity_bytes = 2 * kMiB,
                    .compute_major = 9,
                    .compute_minor = 0,
                    .driver = "13.0",
                    .read_only_registration = true},
          .missing = {}};
}

// Everything of a GPU but a build with CUDA.
GpuFacts NoCuda() {
  return {.pci_bus = true,
          .pci_devices = 1,
          .device_files = 1,
          .kernel_driver = "580.65.06",
          .cuda_driver = true,
          .runtime = "",
          .gpus = Unimplemented("this build has no CUDA")};
}

GpuFacts WithCuda(absl::StatusOr<std::vector<device::CudaGpu>> gpus) {
  GpuFacts facts = NoCuda();
  facts.runtime = "13.0";
  facts.gpus = std::move(gpus);
  return facts;
}

GpuFacts Sees(std::vector<device::CudaGpu> gpus) { return WithCuda(std::move(gpus)); }

Diagnosis Only(const GpuFacts& facts) {
  const std::vector<Diagnosis> list = DiagnoseGpus(facts);
  EXPECT_EQ(list.size(), 1u);
  return list.empty() ? Diagnosis{} : list.front();
}

TEST(GpuDoctorTest, EachGpuIsNamedWithWhatItIs) {
  device::CudaGpu writes = Gpu();
  writes.facts.read_only_registration = false;
  const auto list = DiagnoseGpus(Sees({Gpu(), writes}));
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].name, "GPU 0");
  EXPECT_EQ(list[0].health, Health::kOk);
  EXPECT_EQ(list[0].finding,
            "NVIDIA H100 80GB HBM3, GPU-01, 80.00 GiB, compute capability 9.0, driver for CUDA "
            "13.0, granularity 2.0 MiB");
  EXPECT_EQ(list[1].name, "GPU 1");
  EXPECT_EQ(list[1].health, Health::kOk);
  EXPECT_THAT(list[1].finding, HasSubstr("cannot register host memory read-only"));
}

TEST(GpuDoctorTest, WhatAGpuLacksForADevicePoolIsNamed) {
  device::CudaGpu gpu = Gpu();
  gpu.missing = {"virtual memory management", "memory as descriptors"};
  gpu.facts.granularity_bytes = 0;
  const Diagnosis found = Only(Sees({gpu}));
  EXPECT_EQ(found.health, Health::kWarn);
  EXPECT_THAT(found.finding, AllOf(HasSubstr("lacks virtual memory management, memory as desc"),
                                   Not(HasSubstr("granularity"))));
  EXPECT_THAT(found.advice, HasSubstr("host memory only"));
}

TEST(GpuDoctorTest, AHostWithoutOneIsWell) {
  GpuFacts facts;
  EXPECT_EQ(Only(facts).health, Health::kOk);
  EXPECT_THAT(Only(facts).finding, StartsWith("none: no PCI bus is shown"));
  facts.pci_bus = true;
  EXPECT_EQ(Only(facts).health, Health::kOk);
  EXPECT_EQ(Only(facts).finding, "none: no NVIDIA device on the PCI bus; host memory only");
  facts.cuda_driver = true;  // as in many a container
  EXPECT_EQ(Only(facts).health, Health::kOk);
  EXPECT_THAT(Only(facts).finding, HasSubstr("though libcuda.so.1 is installed"));
}

TEST(GpuDoctorTest, TheFirstThingThatIsMissingIsNamed) {
  GpuFacts facts = NoCuda();
  EXPECT_EQ(Only(facts).health, Health::kWarn);
  EXPECT_EQ(Only(facts).finding, "1 NVIDIA device, driver 580.65.06, but this build has no CUDA");
  EXPECT_THAT(Only(facts).advice, HasSubstr("./dev build cuda"));
  facts.cuda_driver = false;
  EXPECT_THAT(Only(facts).finding, HasSubstr("libcuda.so.1 is missing"));
  facts.device_files = 0;
  EXPECT_THAT(Only(facts).finding, HasSubstr("no /dev/nvidia*"));
  facts.kernel_driver = "";
  facts.pci_devices = 2;
  EXPECT_EQ(Only(facts).health, Health::kWarn);
  EXPECT_EQ(Only(facts).finding, "2 NVIDIA devices, but no driver");
}

TEST(GpuDoctorTest, ADriverThatIsTooOldIsToldWithTheRuntime) {
  const Diagnosis found = Only(WithCuda(
      Unavailable("cudaGetDriverEntryPointByVersion: cudaErrorInsufficientDriver: CUDA driver "
                  "version is insufficient for CUDA runtime version")));
  EXPECT_EQ(found.health, Health::kWarn);
  EXPECT_THAT(found.finding,
              AllOf(HasSubstr("driver 580.65.06"), HasSubstr("cudaErrorInsufficientDriver")));
  EXPECT_THAT(found.advice, HasSubstr("too old for CUDA 13.0"));
}

TEST(GpuDoctorTest, AnyOtherErrorOfCudaIsPassedOn) {
  const Diagnosis found = Only(WithCuda(Unavailable("cuInit: CUDA_ERROR_NO_DEVICE: error=100")));
  EXPECT_EQ(found.health, Health::kWarn);
  EXPECT_THAT(found.finding, HasSubstr("CUDA_ERROR_NO_DEVICE"));
  EXPECT_THAT(found.advice, Not(HasSubstr("too old")));
}

class GpuFactsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/kvasirctl_gpus_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void PciDevice(const std::string& name, const std::string& vendor, const std::string& type) {
    Write("/sys/bus/pci/devices/" + name + "/vendor", vendor + "\n");
    Write("/sys/bus/pci/devices/" + name + "/class", type + "\n");
  }

  std::string root_;
};

TEST_F(GpuFactsTest, CountsNvidiasDisplaysAndAcceleratorsOnThePciBus) {
  PciDevice("0000:00:02.0", "0x8086", "0x030000");
  PciDevice("0000:01:00.0", "0x10de", "0x030000");
  PciDevice("0000:01:00.1", "0x10de", "0x040300");  // its sound
  PciDevice("0000:02:00.0", "0x10de", "0x030200");
  PciDevice("0000:03:00.0", "0x10de", "0x068000");  // a switch
  const GpuFacts facts = GatherGpuFacts(root_);
  EXPECT_TRUE(facts.pci_bus);
  EXPECT_EQ(facts.pci_devices, 2u);
  EXPECT_EQ(facts.device_files, 0u);
}

TEST_F(GpuFactsTest, ReadsTheDriversVersionAndFiles) {
  Write("/proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n");
  Write("/dev/nvidia0", "");
  Write("/dev/nvidia1", "");
  const GpuFacts facts = GatherGpuFacts(root_);
  EXPECT_EQ(facts.kernel_driver, "580.65.06");
  EXPECT_EQ(facts.device_files, 2u);
  EXPECT_FALSE(facts.pci_bus);
}

TEST_F(GpuFactsTest, AVersionThatCannotBeReadIsStillADriver) {
  Write("/proc/driver/nvidia/version", "something new\n");
  EXPECT_EQ(GatherGpuFacts(root_).kernel_driver, "of an unknown version");
}

TEST_F(GpuFactsTest, AHostThatShowsNothingHasNothing) {
  const GpuFacts facts = GatherGpuFacts(root_);
  EXPECT_FALSE(facts.pci_bus);
  EXPECT_EQ(facts.pci_devices + facts.device_files, 0u);
  EXPECT_EQ(facts.kernel_driver, "");
}

}  // namespace
}  // namespace kvasir::ctl
