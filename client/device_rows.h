// Bytes of a device's memory by the processor, for what is seldom: the layout probe, tests, people.
// An engine copies on streams of its own.
#ifndef KVASIR_CLIENT_DEVICE_ROWS_H_
#define KVASIR_CLIENT_DEVICE_ROWS_H_

#include <cstddef>
#include <span>

#include <absl/status/status.h>

#include "device/device.h"

namespace kvasir {

// REQUIRES: the addresses lie in one live extent of the device. Errors: the device's. Cost: a
// stream and a pinned buffer of that size, made and ended; the copy.
absl::Status ReadDevice(device::Device& device, const std::byte* from, std::span<std::byte> to);
absl::Status WriteDevice(device::Device& device, std::span<const std::byte> from, std::byte* to);

}  // namespace kvasir

#endif  // KVASIR_CLIENT_DEVICE_ROWS_H_
