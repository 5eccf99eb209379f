// What a CUDA device and all that it made share. For the sources of device/cuda alone.
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "device/address_ranges.h"
#include "device/cuda/cuda_driver-inl.h"
#include "device/device.h"

namespace kvasir::device {

// Thread-safe. Keeps the device's primary context, which the runtime uses as well.
class CudaState {
 public:
  CudaState(const CudaDriver& table, CUdevice number) : driver(table), device(number) {}
  ~CudaState();

  const CudaDriver driver;
  const CUdevice device;
  // Constant once the device is open.
  CUcontext context = nullptr;
  DeviceFacts facts;
  int lowest_priority = 0;
  AddressRanges ranges;

  // OK, with the context current on this thread; or kUnavailable for ever.
  absl::Status Enter() ABSL_LOCKS_EXCLUDED(mutex_);
  // Of a call's result; after a fatal one the device is lost.
  absl::Status Check(CUresult result, const char* call) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  std::atomic<bool> lost_ = false;
  Mutex mutex_;  // leaf lock
  std::string reason_ ABSL_GUARDED_BY(mutex_);
};

// Gathers rows on one stream. What the kernels read besides the rows (addresses, turns) is written
// to pinned memory and copied ahead of them. Not thread-safe. Ends when the stream is through.
class CudaGathers {
 public:
  CudaGathers(CudaState& state, CUstream stream) : state_(state), stream_(stream) {}
  CudaGathers(const CudaGathers&) = delete;
  CudaGathers& operator=(const CudaGathers&) = delete;
  ~CudaGathers();

  // REQUIRES: the gathers are checked and the context is current. Errors: the driver's; those of a
  // launch.
  absl::Status Put(std::span<const RowGather> gathers);

 private:
  // Memory on both sides for the lists of one call, and an event behind its kernels: until that has
  // come the host's half is not written again. The device's half needs no event, but has one life
  // with it.
  struct Lists {
    std::byte* host = nullptr;
    CUdeviceptr device = 0;
    uint64_t bytes = 0;
    CUevent passed = nullptr;
  };
  // At least so large and not in use. There are no more than calls were under way at once.
  absl::StatusOr<Lists*> Take(uint64_t bytes);
  absl::Status Make(uint64_t bytes, Lists* lists);
  void Free(Lists& lists);

  CudaState& state_;
  const CUstream stream_;
  std::vector<std::unique_ptr<Lists>> lists_;
};

std::unique_ptr<DeviceStream> MakeCudaStream(CudaState& state, CUstream stream);
std::shared_ptr<DeviceEvent> MakeCudaEvent(CudaState& state, CUevent event);

inline CUdeviceptr ToCuda(const std::byte* address) {
  return reinterpret_cast<CUdeviceptr>(address);
}

}  // namespace kvasir::device
