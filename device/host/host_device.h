// HostDevice: a device of host memory. An extent is a memfd, a stream is a thread with a queue.
//
// What it promises is what a GPU does: extents take multiples of the granularity, memory that an
// importer still maps is not free though its creator has destroyed it, a lost device stays lost.
// Memory is never seen by two owners: each extent is a fresh memfd, which the kernel has zeroed,
// and is closed with it. Thread-safe as device.h says. Faults are injected by the *ForTest calls.
#ifndef KVASIR_DEVICE_HOST_HOST_DEVICE_H_
#define KVASIR_DEVICE_HOST_HOST_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "device/device.h"

namespace kvasir::device {

class HostState;

struct HostDeviceOptions {
  uint64_t total_bytes = 64ULL << 20;
  uint64_t granularity_bytes = 2ULL << 20;  // a multiple of the page; 2 MiB: as GPUs have it
  std::string name = "host memory";
  std::string uuid = "host-0";
  // As on a GPU, addresses of extents are for streams alone: who follows one ends by SIGSEGV. For
  // finding code that would not work there.
  bool hides_extents = false;
};

class HostDevice final : public Device {
 public:
  // Errors: kInvalidArgument (granularity_bytes, total_bytes). No memory is taken yet.
  static absl::StatusOr<std::unique_ptr<HostDevice>> Create(const HostDeviceOptions& options);
  ~HostDevice() override;

  const DeviceFacts& facts() const override;
  // Cost: asks the kernel once for each extent that is destroyed here and held elsewhere.
  absl::StatusOr<uint64_t> FreeBytes() override;
  absl::Status Health() override;
  absl::StatusOr<std::unique_ptr<DeviceExtent>> CreateExtent(uint64_t bytes, uint64_t id) override;
  absl::StatusOr<std::unique_ptr<DeviceExtent>> ImportExtent(UniqueFd fd, uint64_t bytes,
                                                             Access access) override;
  // A thread; the priority is not used.
  absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream(StreamPriority priority) override;
  absl::StatusOr<std::shared_ptr<DeviceEvent>> MakeEvent() override;
  absl::StatusOr<std::unique_ptr<HostRegistration>> RegisterHost(std::byte* data, uint64_t bytes,
                                                                 bool read_only) override;

  // The next `count` extents cannot be created (kResourceExhausted).
  void FailCreatesForTest(uint64_t count);
  // The next `count` imports fail (kResourceExhausted).
  void FailImportsForTest(uint64_t count);
  // After `skip` batches that succeed, `count` batches are refused as a driver would (kInternal).
  void FailCopiesForTest(uint64_t skip, uint64_t count);
  // Streams take no work out of their queues while it is true.
  void HoldForTest(bool hold);
  // As after a fatal error of a GPU: work in queues is dropped. Returns once nothing is touched.
  void LoseForTest(const std::string& reason);

 private:
  explicit HostDevice(const HostDeviceOptions& options);

  std::unique_ptr<HostState> state_;
  const bool hides_extents_;
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_HOST_HOST_DEVICE_H_
