// Bytes of a device's memory by the processor, for what is seldom: the layout probe, tests, people,
// and engines that have no streams of their own.
#ifndef KVASIR_CLIENT_DEVICE_ROWS_H_
#define KVASIR_CLIENT_DEVICE_ROWS_H_

#include <cstddef>
#include <memory>
#include <span>

#include <absl/status/status.h>

#include "base/mapped_region.h"
#include "base/mutex.h"
#include "device/device.h"

namespace kvasir {

// Copies by one stream and one pinned buffer, made at the first copy. Thread-safe: copies take
// turns. The device must outlive it.
class DeviceCopier {
 public:
  explicit DeviceCopier(device::Device& device) : device_(device) {}
  DeviceCopier(const DeviceCopier&) = delete;
  DeviceCopier& operator=(const DeviceCopier&) = delete;

  // Both return when the bytes are there. Errors: kInvalidArgument where an address lies in no
  // extent of the device, kFailedPrecondition where it is read-only; else the device's. What is
  // longer than the buffer (4 MiB) is copied in parts, of which the first ones stay. Cost: a copy
  // by the processor and one by the device, and a wait for it.
  absl::Status Read(const std::byte* from, std::span<std::byte> to);
  absl::Status Write(std::span<const std::byte> from, std::byte* to);

 private:
  absl::Status Prepare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CopyPart(const device::CopyPiece& part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  device::Device& device_;
  Mutex mutex_;  // held while a copy runs: there is one buffer
  MappedRegion buffer_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<device::HostRegistration> registration_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<device::DeviceStream> stream_ ABSL_GUARDED_BY(mutex_);  // ends first
};

// REQUIRES: the addresses lie in one live extent of the device. Errors: the device's. Cost: a
// stream and a pinned buffer, made and ended; the copy.
absl::Status ReadDevice(device::Device& device, const std::byte* from, std::span<std::byte> to);
absl::Status WriteDevice(device::Device& device, std::span<const std::byte> from, std::byte* to);

}  // namespace kvasir

#endif  // KVASIR_CLIENT_DEVICE_ROWS_H_
