// What a CUDA device and all that it made share. For the sources of device/cuda alone.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

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

std::unique_ptr<DeviceStream> MakeCudaStream(CudaState& state, CUstream stream);
std::shared_ptr<DeviceEvent> MakeCudaEvent(CudaState& state, CUevent event);

inline CUdeviceptr ToCuda(const std::byte* address) {
  return reinterpret_cast<CUdeviceptr>(address);
}

}  // namespace kvasir::device
