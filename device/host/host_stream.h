// HostStream and HostEvent: a thread that does the work of a queue in order. Private to
// device/host.
#ifndef KVASIR_DEVICE_HOST_HOST_STREAM_H_
#define KVASIR_DEVICE_HOST_HOST_STREAM_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mutex.h"
#include "device/device.h"
#include "device/host/host_state.h"

namespace kvasir::device {

// Thread-safe.
class HostEvent final : public DeviceEvent {
 public:
  explicit HostEvent(HostState& state) : state_(state) {}
  absl::StatusOr<bool> Query() override;
  absl::Status Synchronize() override;

  uint64_t Recorded() const;  // the ticket of the last Record(); 0: none
  uint64_t TakeTicket();
  void Finish(uint64_t ticket);
  // Waits a moment for that ticket; whether it is done.
  bool WaitAMoment(uint64_t ticket);

 private:
  HostState& state_;
  mutable Mutex mutex_;  // leaf lock
  CondVar changed_;
  uint64_t recorded_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
};

class HostStream final : public DeviceStream {
 public:
  explicit HostStream(HostState& state);
  ~HostStream() override;

  absl::Status Copy(std::span<const CopyPiece> pieces) override;
  absl::Status CopyStrided(std::span<const StridedPiece> pieces) override;
  absl::Status GatherRows(std::span<const RowGather> gathers) override;
  absl::Status Zero(const DeviceExtent& extent) override;
  absl::Status Record(const std::shared_ptr<DeviceEvent>& event) override;
  absl::Status Wait(const std::shared_ptr<DeviceEvent>& event) override;
  absl::Status WriteWord(DeviceWord& word, uint64_t value) override;
  absl::Status WaitWord(DeviceWord& word, uint64_t at_least) override;
  void ReleaseWaits() override;
  absl::Status Synchronize() override;

 private:
  struct Command {
    std::function<void()> touch;        // touches memory: not once the device is lost
    std::function<bool()> wait;         // waits a moment; true: has come
    std::function<void()> always = {};  // bookkeeping, also of a lost device
  };
  struct PendingWait {
    DeviceWord* word = nullptr;
    uint64_t at_least = 0;
  };

  absl::Status Enqueue(Command command) ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Execute(const Command& command);

  HostState& state_;
  Mutex mutex_;  // leaf lock
  CondVar changed_;
  std::deque<Command> queue_ ABSL_GUARDED_BY(mutex_);
  std::deque<PendingWait> waits_ ABSL_GUARDED_BY(mutex_);  // in the order of the queue
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_HOST_HOST_STREAM_H_
