// The devices that tests of device/ run on: host memory everywhere, CUDA where there is a GPU.
#ifndef KVASIR_TESTS_DEVICE_DEVICES_UNDER_TEST_H_
#define KVASIR_TESTS_DEVICE_DEVICES_UNDER_TEST_H_

#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "base/mapped_region.h"
#include "device/device.h"

namespace kvasir::device::testing {

// `kind` is "host" or "cuda". Errors: of a machine or a build that has no such device.
absl::StatusOr<std::unique_ptr<Device>> OpenForTest(const std::string& kind);

// A memfd, mapped and registered with the device: what pinned host memory is to a test.
class SharedPages {
 public:
  SharedPages(Device& device, uint64_t bytes, bool read_only = false);
  // Of another process's: `fd` is its file.
  SharedPages(Device& device, UniqueFd fd, uint64_t bytes);

  std::byte* data() const { return map_.data(); }
  const UniqueFd& fd() const { return fd_; }
  DeviceWord& word(uint64_t index) const;
  HostRegistration& registration() const { return *registration_; }

 private:
  UniqueFd fd_;
  MappedRegion map_;
  std::unique_ptr<HostRegistration> registration_;
};

// Bytes that differ from place to place and from seed to seed.
void FillPattern(std::byte* data, uint64_t bytes, uint64_t seed);
bool HasPattern(const std::byte* data, uint64_t bytes, uint64_t seed);
bool IsZero(const std::byte* data, uint64_t bytes);

}  // namespace kvasir::device::testing

#endif  // KVASIR_TESTS_DEVICE_DEVICES_UNDER_TEST_H_
