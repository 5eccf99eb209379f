// OffloadWorkers: the threads between the core and the devices' offload engines, two for each
// device: one brings up what somebody waits for, one takes down what should lie in host memory.
// They sleep while there is nothing to do; while anything lies on a device, the latter looks once a
// second whether it fills up.
#ifndef KVASIR_DAEMON_OFFLOAD_OFFLOAD_WORKERS_H_
#define KVASIR_DAEMON_OFFLOAD_OFFLOAD_WORKERS_H_

#include <atomic>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include <absl/status/statusor.h>

#include "allocator/device_memory.h"
#include "daemon/shared_core.h"
#include "device/offload/offload_engine.h"

namespace kvasir {

// Thread-safe. Joins its threads when destroyed.
class OffloadWorkers {
 public:
  // `shared` and the devices must outlive it. Errors: of the devices, which make streams for it.
  static absl::StatusOr<std::unique_ptr<OffloadWorkers>> Start(
      SharedCore& shared, std::span<const std::unique_ptr<DeviceMemory>> devices);
  ~OffloadWorkers() { Stop(); }
  OffloadWorkers(const OffloadWorkers&) = delete;
  OffloadWorkers& operator=(const OffloadWorkers&) = delete;

  // Cancels what is under way and joins.
  void Stop();

 private:
  struct Lane {
    DeviceMemory* memory = nullptr;
    device::CopyDirection direction = device::CopyDirection::kToHost;
    std::unique_ptr<device::OffloadEngine> engine;  // its own: results are the lane's alone
  };

  OffloadWorkers(SharedCore& shared, std::vector<Lane> lanes);
  void Loop(Lane& lane);

  SharedCore& shared_;
  std::vector<Lane> lanes_;
  std::atomic<bool> stopping_ = false;  // set with shared_.mutex
  std::vector<std::thread> threads_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_OFFLOAD_OFFLOAD_WORKERS_H_
