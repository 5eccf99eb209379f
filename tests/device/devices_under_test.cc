#include "tests/device/devices_under_test.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"
#include "device/cuda/cuda_devices.h"
#include "device/host/host_device.h"

namespace kvasir::device::testing {
namespace {

std::byte PatternAt(uint64_t at, uint64_t seed) {
  return static_cast<std::byte>((at * 2654435761U + seed * 40503U) >> 16);
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  KVASIR_CHECK(value.ok(), "{}", value.status().ToString());
  return *std::move(value);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenForTest(const std::string& kind) {
  if (kind == "host") return HostDevice::Create({});
  KVASIR_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Device>> devices, OpenCudaDevices());
  return std::move(devices.front());
}

SharedPages::SharedPages(Device& device, uint64_t bytes, bool read_only)
    : fd_(::memfd_create("kvasir-test", MFD_CLOEXEC)) {
  KVASIR_CHECK(::ftruncate(fd_.get(), static_cast<off_t>(bytes)) == 0, "ftruncate");
  map_ = OrDie(MappedRegion::Map(fd_, bytes, Access::kReadWrite));
  registration_ = OrDie(device.RegisterHost(map_.data(), bytes, read_only));
}

SharedPages::SharedPages(Device& device, UniqueFd fd, uint64_t bytes)
    : fd_(std::move(fd)),
      map_(OrDie(MappedRegion::Map(fd_, bytes, Access::kReadWrite))),
      registration_(OrDie(device.RegisterHost(map_.data(), bytes, false))) {}

DeviceWord& SharedPages::word(uint64_t index) const {
  return reinterpret_cast<DeviceWord*>(map_.data())[index];
}

void FillPattern(std::byte* data, uint64_t bytes, uint64_t seed) {
  for (uint64_t i = 0; i < bytes; ++i) data[i] = PatternAt(i, seed);
}

bool HasPattern(const std::byte* data, uint64_t bytes, uint64_t seed) {
  for (uint64_t i = 0; i < bytes; ++i) {
    if (data[i] != PatternAt(i, seed)) return false;
  }
  return true;
}

bool IsZero(const std::byte* data, uint64_t bytes) {
  return std::all_of(data, data + bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace kvasir::device::testing
