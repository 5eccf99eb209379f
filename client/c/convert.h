// From the structs of kvasir.h to the values of the C++ client, and errors back. Private to
// client/c/. Errors: kInvalidArgument naming the field.
#ifndef KVASIR_CLIENT_C_CONVERT_H_
#define KVASIR_CLIENT_C_CONVERT_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/c/kvasir.h"
#include "client/c/kvasir_device.h"
#include "client/c/kvasir_tenant.h"
#include "client/device_rows.h"
#include "client/session.h"
#include "device/device.h"

namespace kvasir::c {

// A device and its copies. Shared by its handle with sessions that it was handed to and with all
// that these gave: a caller in C closes them in any order.
struct OpenedDevice {
  explicit OpenedDevice(std::unique_ptr<device::Device> opened)
      : device(std::move(opened)), copier(*device) {}
  const std::unique_ptr<device::Device> device;
  DeviceCopier copier;
};
using DeviceRefs = std::vector<std::shared_ptr<OpenedDevice>>;

absl::Status Missing(const char* name);

// Writes the status into `error`, which may be null; what is short is remembered for the thread.
kvasir_code Answer(const absl::Status& status, kvasir_error* error);
// Likewise, without an allocation.
kvasir_code AnswerPlainly(kvasir_code code, const char* text, kvasir_error* error);
// Of the calling thread's last answer; null: none.
const kvasir_shortage* LastShortage();

// Each takes the struct as this library knows it: what the caller's header does not have is zero,
// and what it has more is not looked at.
absl::StatusOr<ConnectOptions> ToConnectOptions(const kvasir_connect_options* given);
// Of the same struct: what its `devices` are.
absl::StatusOr<DeviceRefs> ToDevices(const kvasir_connect_options* given);
absl::StatusOr<ModelSpec> ToModelSpec(const kvasir_model_spec* given);
absl::StatusOr<ModelHandle> ToModel(const kvasir_model* given);
absl::StatusOr<PrefixOptions> ToPrompt(const kvasir_prompt* given);
absl::StatusOr<OpenOptions> ToOpenOptions(const kvasir_open_options* given);
absl::StatusOr<RequestHints> ToHints(const kvasir_hints* given);
absl::StatusOr<LeaseOptions> ToLeaseOptions(const kvasir_lease_options* given);
absl::StatusOr<std::vector<std::string>> ToTexts(const kvasir_bytes* texts, size_t count);

}  // namespace kvasir::c

#endif  // KVASIR_CLIENT_C_CONVERT_H_
