// OffloadEngine: copies block groups between a device and registered host memory, on streams of its
// own with low priority, in the order in which they are asked for.
//
// A request is cut into steps: one layer of all its groups (kByLayer: attention of the first layer
// can begin while others are on their way), or all layers of one group (kByGroup). Whoever waits
// for a step without anybody's processor has its stream wait for the request's word.
// Life of a request: queued -> issued (its copies are in a stream) -> ended, told once by Poll().
// Back-pressure: issued requests hold at most in_flight_bytes_max; what is over it waits in a queue
// with a bound of its own; beyond that Submit() refuses.
// INVARIANT (CheckBooks): submitted = queued + in flight + ended, and the bytes of each add up.
// Thread-safe; has no thread: work goes on in Submit() and Poll(). Owns streams and events, not the
// device, its extents or registrations: those live until the requests that name them have ended.
// An ended request touches no buffer any more, however it ended.
#ifndef KVASIR_DEVICE_OFFLOAD_OFFLOAD_ENGINE_H_
#define KVASIR_DEVICE_OFFLOAD_OFFLOAD_ENGINE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mutex.h"
#include "device/device.h"
#include "device/offload/group_layout.h"

namespace kvasir::device {

struct OffloadOptions {
  // For each direction: a GPU has an engine for each, and one copy seldom fills it alone.
  uint32_t streams_per_direction = 2;
  // 256 MiB: some 5 ms of a PCIe 5 link, so that cancelling is soon seen. Also the largest request.
  uint64_t in_flight_bytes_max = 256ULL << 20;
  uint32_t queued_max = 1024;  // requests
};

enum class StepOrder { kByLayer, kByGroup };

struct OffloadRequest {
  CopyDirection direction = CopyDirection::kToDevice;
  StepOrder order = StepOrder::kByLayer;
  std::vector<BlockPair> blocks;
  // Step i ends with word = word_base + i + 1, written by the stream. Null: nobody waits so. It is
  // not written for steps that were not copied.
  DeviceWord* word = nullptr;
  uint64_t word_base = 0;
};

struct OffloadResult {
  uint64_t id = 0;
  absl::Status status;  // OK: all bytes are there; kCancelled; else why they are not
  uint64_t bytes = 0;
};

struct OffloadCounts {
  uint64_t queued = 0, queued_bytes = 0;
  uint64_t in_flight = 0, in_flight_bytes = 0;
  uint64_t submitted = 0, submitted_bytes = 0;
  uint64_t done = 0, cancelled = 0, failed = 0;  // ended, each in one way
  uint64_t ended_bytes = 0;
};

class OffloadEngine {
 public:
  // Errors: of the device; kInvalidArgument naming the option.
  static absl::StatusOr<std::unique_ptr<OffloadEngine>> Create(Device& device,
                                                               const OffloadOptions& options);
  // Waits for what has been issued; what is queued is dropped and never told.
  ~OffloadEngine();

  // `layout` has to live until the request has ended. Returns its id. Errors: kInvalidArgument (no
  // blocks, a block beyond its plane, bytes over in_flight_bytes_max), kResourceExhausted with what
  // is in flight where the queue is full, kUnavailable where the device is lost. Cost: of one that
  // is issued at once a driver's call a step and run.
  absl::StatusOr<uint64_t> Submit(const GroupLayout& layout, OffloadRequest request);

  // One that is queued is dropped; one that is issued goes on and ends as cancelled. Either is told
  // by Poll(). Errors: kNotFound where it has ended.
  absl::Status Cancel(uint64_t id);

  // Ends what is done, issues what now has room, and returns what has ended since the last time.
  // Never waits. Cost: a query for each request in flight.
  std::vector<OffloadResult> Poll();

  // Waits until one that is in flight now has ended, which Poll() tells; at once where none is.
  // Errors: kUnavailable, the device is lost.
  absl::Status WaitForOne();

  OffloadCounts counts() const;
  // OK, or kInternal naming the sum that is off. Cost: O(requests).
  absl::Status CheckBooks() const;

 private:
  struct Request {
    uint64_t id = 0;
    const GroupLayout* layout = nullptr;
    OffloadRequest what;
    uint64_t bytes = 0;
    bool cancelled = false;
    absl::Status failed;                 // a step could not be issued
    std::shared_ptr<DeviceEvent> event;  // issued: behind its last copy
    uint32_t stream = 0;                 // issued: which of streams_
  };
  struct DirectedStream {
    CopyDirection direction;
    std::unique_ptr<DeviceStream> stream;
    uint64_t bytes = 0;  // in flight
  };

  OffloadEngine(Device& device, const OffloadOptions& options)
      : device_(device), options_(options) {}
  uint32_t EmptiestStreamLocked(CopyDirection direction) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status IssueStepsLocked(Request& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void IssueLocked(Request request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReapLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndLocked(const Request& request, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Device& device_;
  const OffloadOptions options_;
  // Held while copies are put in streams, and by nobody who waits for one.
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<DeviceEvent>> spare_events_ ABSL_GUARDED_BY(mutex_);
  std::deque<Request> queue_ ABSL_GUARDED_BY(mutex_);
  std::deque<Request> in_flight_ ABSL_GUARDED_BY(mutex_);
  // Behind the events: streams end first, and wait for their work.
  std::vector<DirectedStream> streams_ ABSL_GUARDED_BY(mutex_);
  std::vector<OffloadResult> ended_ ABSL_GUARDED_BY(mutex_);
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  OffloadCounts counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_OFFLOAD_OFFLOAD_ENGINE_H_
