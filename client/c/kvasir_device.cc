#include "client/c/kvasir_device.h"

#include <unistd.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/c/convert.h"
#include "client/c/handles.h"
#include "device/cuda/cuda_devices.h"
#include "device/host/host_device.h"

using kvasir::c::Guarded;
using kvasir::c::Missing;
using kvasir::c::OpenedDevice;

namespace {

constexpr std::string_view kHostPrefix = "host-";
constexpr size_t kUuidBytesMax = 47;  // what a notice of the daemon has room for

bool StartsWith(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

// As large as the host's memory: a bound on what is imported, and nothing is taken.
absl::StatusOr<std::unique_ptr<kvasir::device::Device>> OpenHost(const std::string& uuid) {
  if (uuid.size() == kHostPrefix.size() || uuid.size() > kUuidBytesMax) {
    return kvasir::InvalidArgument("device names no pool: device={} bytes={} min={} max={}",
                                   uuid.substr(0, kUuidBytesMax), uuid.size(),
                                   kHostPrefix.size() + 1, kUuidBytesMax);
  }
  kvasir::device::HostDeviceOptions options;
  options.name = "host memory of " + uuid.substr(kHostPrefix.size());
  options.uuid = uuid;
  options.total_bytes = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  options.hides_extents = true;  // what works here does not read a GPU's memory by the processor
  return kvasir::device::HostDevice::Create(options);
}

absl::StatusOr<std::unique_ptr<kvasir::device::Device>> OpenByName(const std::string& name) {
  if (StartsWith(name, kHostPrefix)) return OpenHost(name);
  if (StartsWith(name, "cuda:") || StartsWith(name, "GPU-")) {
    return kvasir::device::OpenCudaDevice(name);
  }
  return kvasir::InvalidArgument(
      "device is no name of a device: device={} expected=cuda:N, GPU-UUID or host-POOL",
      name.substr(0, kUuidBytesMax));
}

}  // namespace

extern "C" {

kvasir_code kvasir_open_device(const char* name, kvasir_device** device, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (name == nullptr || device == nullptr) return Missing("name or device");
    *device = nullptr;
    KVASIR_ASSIGN_OR_RETURN(auto opened, OpenByName(name));
    *device = new kvasir_device{std::make_shared<OpenedDevice>(std::move(opened))};
    return absl::OkStatus();
  });
}

void kvasir_close_device(kvasir_device* device) { delete device; }

const char* kvasir_device_uuid(const kvasir_device* device) {
  return device == nullptr ? "" : device->opened->device->facts().uuid.c_str();
}
const char* kvasir_device_name(const kvasir_device* device) {
  return device == nullptr ? "" : device->opened->device->facts().name.c_str();
}
uint32_t kvasir_device_is_cuda(const kvasir_device* device) {
  return device != nullptr &&
                 device->opened->device->facts().kind == kvasir::device::DeviceKind::kCuda
             ? 1
             : 0;
}

kvasir_code kvasir_read_device(kvasir_device* device, const void* from, void* to, size_t bytes,
                               kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (device == nullptr) return Missing("device");
    if (bytes > 0 && (from == nullptr || to == nullptr)) return Missing("from or to");
    return device->opened->copier.Read(static_cast<const std::byte*>(from),
                                       std::span(static_cast<std::byte*>(to), bytes));
  });
}

kvasir_code kvasir_write_device(kvasir_device* device, const void* from, void* to, size_t bytes,
                                kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (device == nullptr) return Missing("device");
    if (bytes > 0 && (from == nullptr || to == nullptr)) return Missing("from or to");
    return device->opened->copier.Write(std::span(static_cast<const std::byte*>(from), bytes),
                                        static_cast<std::byte*>(to));
  });
}

const char* kvasir_model_device(kvasir_session* session, const kvasir_model* model) {
  if (session == nullptr || model == nullptr) return "";
  kvasir::MutexLock lock(session->mutex);
  const auto found = session->model_devices.find(model->id);
  return found == session->model_devices.end() ? "" : found->second.c_str();
}

}  // extern "C"
