#include "device/cuda/cuda_devices.h"

#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "device/cuda/cuda_state-inl.h"
#include "kernels/cuda/copy_rows.h"

#include <fmt/ranges.h>

namespace kvasir::device {

CudaState::~CudaState() {
  if (context != nullptr) (void)driver.cuDevicePrimaryCtxRelease(device);
}

absl::Status CudaState::Enter() {
  if (lost_.load(std::memory_order_acquire)) {
    MutexLock lock(mutex_);
    return Unavailable("the device is lost: device={} reason={}", facts.uuid, reason_);
  }
  return Check(driver.cuCtxSetCurrent(context), "cuCtxSetCurrent");
}

absl::Status CudaState::Check(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  const absl::Status status = CudaError(driver, result, call);
  if (!IsFatal(result)) return status;
  {
    MutexLock lock(mutex_);
    if (reason_.empty()) reason_ = MessageOf(status);
  }
  lost_.store(true, std::memory_order_release);
  return Unavailable("the device is lost: device={} reason={}", facts.uuid, MessageOf(status));
}

namespace {

// Undoes, in reverse, as much of making a mapping as has been done.
class Mapping {
 public:
  Mapping(CudaState& state, CUmemGenericAllocationHandle handle, uint64_t bytes)
      : state_(state), handle_(handle), bytes_(bytes) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (known_) state_.ranges.Remove(data());
    if (!state_.Enter().ok()) return;  // goes with the context
    const CudaDriver& driver = state_.driver;
    if (mapped_) (void)state_.Check(driver.cuMemUnmap(address_, bytes_), "cuMemUnmap");
    if (address_ != 0) {
      (void)state_.Check(driver.cuMemAddressFree(address_, bytes_), "cuMemAddressFree");
    }
    (void)state_.Check(driver.cuMemRelease(handle_), "cuMemRelease");
  }

  absl::Status Map(Access access) {
    const CudaDriver& driver = state_.driver;
    KVASIR_RETURN_IF_ERROR(state_.Check(driver.cuMemAddressReserve(&address_, bytes_, 0, 0, 0),
                                        "cuMemAddressReserve"));
    KVASIR_RETURN_IF_ERROR(
        state_.Check(driver.cuMemMap(address_, bytes_, 0, handle_, 0), "cuMemMap"));
    mapped_ = true;
    CUmemAccessDesc wanted = {};
    wanted.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    wanted.location.id = state_.device;
    wanted.flags = access == Access::kReadWrite ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                                : CU_MEM_ACCESS_FLAGS_PROT_READ;
    KVASIR_RETURN_IF_ERROR(
        state_.Check(driver.cuMemSetAccess(address_, bytes_, &wanted, 1), "cuMemSetAccess"));
    KVASIR_RETURN_IF_ERROR(state_.ranges.Add(data(), bytes_, access, false));
    known_ = true;
    return absl::OkStatus();
  }

  std::byte* data() const { return reinterpret_cast<std::byte*>(address_); }
  uint64_t bytes() const { return bytes_; }
  CUmemGenericAllocationHandle handle() const { return handle_; }

 private:
  CudaState& state_;
  const CUmemGenericAllocationHandle handle_;
  const uint64_t bytes_;
  CUdeviceptr address_ = 0;
  bool mapped_ = false, known_ = false;
};

class CudaExtent final : public DeviceExtent {
 public:
  CudaExtent(CudaState& state, uint64_t id, uint64_t bytes, Access access, bool imported,
             std::unique_ptr<Mapping> map)
      : state_(state),
        id_(id),
        bytes_(bytes),
        access_(access),
        imported_(imported),
        map_(std::move(map)) {}

  uint64_t id() const override { return id_; }
  std::byte* address() const override { return map_->data(); }
  uint64_t bytes() const override { return bytes_; }
  uint64_t charged_bytes() const override { return map_->bytes(); }
  Access access() const override { return access_; }
  absl::StatusOr<UniqueFd> ExportFd() const override {
    if (imported_) return FailedPrecondition("ExportFd: the extent is imported: bytes={}", bytes_);
    KVASIR_RETURN_IF_ERROR(state_.Enter());
    int fd = -1;
    KVASIR_RETURN_IF_ERROR(
        state_.Check(state_.driver.cuMemExportToShareableHandle(
                         &fd, map_->handle(), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
                     "cuMemExportToShareableHandle"));
    return UniqueFd(fd);
  }

 private:
  CudaState& state_;
  const uint64_t id_, bytes_;
  const Access access_;
  const bool imported_;
  const std::unique_ptr<Mapping> map_;
};

class CudaRegistration final : public HostRegistration {
 public:
  CudaRegistration(CudaState& state, std::byte* data, bool read_only)
      : state_(state), data_(data), read_only_(read_only) {}
  ~CudaRegistration() override {
    state_.ranges.Remove(data_);
    if (!state_.Enter().ok()) return;
    (void)state_.Check(state_.driver.cuMemHostUnregister(data_), "cuMemHostUnregister");
  }
  bool read_only() const override { return read_only_; }

 private:
  CudaState& state_;
  std::byte* const data_;
  const bool read_only_;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(std::unique_ptr<CudaState> state) : state_(std::move(state)) {}

  const DeviceFacts& facts() const override { return state_->facts; }
  absl::Status Health() override { return state_->Enter(); }

  absl::StatusOr<uint64_t> FreeBytes() override {
    KVASIR_RETURN_IF_ERROR(state_->Enter());
    size_t free = 0, total = 0;
    KVASIR_RETURN_IF_ERROR(state_->Check(driver().cuMemGetInfo(&free, &total), "cuMemGetInfo"));
    return free;
  }

  absl::StatusOr<std::unique_ptr<DeviceExtent>> CreateExtent(uint64_t bytes, uint64_t id) override {
    KVASIR_ASSIGN_OR_RETURN(const uint64_t charged, ChargedBytes("CreateExtent", bytes));
    const CUmemAllocationProp properties = PropertiesOf(state_->device);
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = driver().cuMemCreate(&handle, charged, &properties, 0);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
      KVASIR_ASSIGN_OR_RETURN(const uint64_t free, FreeBytes());
      return ResourceExhausted(
          "CreateExtent: cuMemCreate: the device is full: charged_bytes={} free_bytes={} "
          "total_bytes={}",
          charged, free, facts().total_bytes);
    }
    KVASIR_RETURN_IF_ERROR(state_->Check(result, "cuMemCreate"));
    auto map = std::make_unique<Mapping>(*state_, handle, charged);
    KVASIR_RETURN_IF_ERROR(map->Map(Access::kReadWrite));
    auto extent =
        std::make_unique<CudaExtent>(*state_, id, bytes, Access::kReadWrite, false, std::move(map));
    // Before anybody gets its address or its descriptor.
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceStream> stream,
                            MakeStream(StreamPriority::kNormal));
    KVASIR_RETURN_IF_ERROR(stream->Zero(*extent));
    KVASIR_RETURN_IF_ERROR(stream->Synchronize());
    return extent;
  }

  absl::StatusOr<std::unique_ptr<DeviceExtent>> ImportExtent(UniqueFd fd, uint64_t bytes,
                                                             Access access) override {
    KVASIR_ASSIGN_OR_RETURN(const uint64_t charged, ChargedBytes("ImportExtent", bytes));
    CUmemGenericAllocationHandle handle = 0;
    void* const os_handle = reinterpret_cast<void*>(static_cast<uintptr_t>(fd.get()));
    KVASIR_RETURN_IF_ERROR(
        state_->Check(driver().cuMemImportFromShareableHandle(
                          &handle, os_handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
                      "cuMemImportFromShareableHandle"));
    auto map = std::make_unique<Mapping>(*state_, handle, charged);
    CUmemAllocationProp found = {};
    KVASIR_RETURN_IF_ERROR(
        state_->Check(driver().cuMemGetAllocationPropertiesFromHandle(&found, handle),
                      "cuMemGetAllocationPropertiesFromHandle"));
    if (found.location.type != CU_MEM_LOCATION_TYPE_DEVICE || found.location.id != state_->device) {
      return InvalidArgument("ImportExtent: fd is memory of another device: device={} of={}",
                             found.location.id, state_->device);
    }
    KVASIR_RETURN_IF_ERROR(map->Map(access));  // of another size: refused by cuMemMap
    return std::make_unique<CudaExtent>(*state_, 0, bytes, access, true, std::move(map));
  }

  absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream(StreamPriority priority) override {
    KVASIR_RETURN_IF_ERROR(state_->Enter());
    CUstream stream = nullptr;
    const int number = priority == StreamPriority::kLowest ? state_->lowest_priority : 0;
    KVASIR_RETURN_IF_ERROR(
        state_->Check(driver().cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, number),
                      "cuStreamCreateWithPriority"));
    return MakeCudaStream(*state_, stream);
  }

  absl::StatusOr<std::shared_ptr<DeviceEvent>> MakeEvent() override {
    KVASIR_RETURN_IF_ERROR(state_->Enter());
    CUevent event = nullptr;
    KVASIR_RETURN_IF_ERROR(state_->Check(
        driver().cuEventCreate(&event, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC),
        "cuEventCreate"));
    return MakeCudaEvent(*state_, event);
  }

  absl::StatusOr<std::unique_ptr<HostRegistration>> RegisterHost(std::byte* data, uint64_t bytes,
                                                                 bool read_only) override {
    KVASIR_RETURN_IF_ERROR(state_->Enter());
    if (bytes == 0 || bytes % kPageBytes != 0 || ToCuda(data) % kPageBytes != 0) {
      return InvalidArgument("RegisterHost: whole pages only: address={:#x} bytes={} page_bytes={}",
                             ToCuda(data), bytes, kPageBytes);
    }
    // Where it cannot be promised it is registered all the same, and says so (facts()).
    const bool promised = read_only && facts().read_only_registration;
    const unsigned flags =
        CU_MEMHOSTREGISTER_DEVICEMAP | (promised ? CU_MEMHOSTREGISTER_READ_ONLY : 0U);
    KVASIR_RETURN_IF_ERROR(
        state_->ranges.Add(data, bytes, promised ? Access::kReadOnly : Access::kReadWrite, true));
    const absl::Status status =
        state_->Check(driver().cuMemHostRegister(data, bytes, flags), "cuMemHostRegister");
    if (!status.ok()) {
      state_->ranges.Remove(data);
      return status;
    }
    return std::make_unique<CudaRegistration>(*state_, data, promised);
  }

 private:
  const CudaDriver& driver() const { return state_->driver; }

  absl::StatusOr<uint64_t> ChargedBytes(const char* call, uint64_t bytes) {
    KVASIR_RETURN_IF_ERROR(state_->Enter());
    if (bytes == 0 || bytes > facts().total_bytes) {
      return InvalidArgument("{}: bytes out of bounds: bytes={} min=1 max={}", call, bytes,
                             facts().total_bytes);
    }
    return RoundUp(bytes, facts().granularity_bytes);
  }

  const std::unique_ptr<CudaState> state_;
};

absl::StatusOr<std::unique_ptr<Device>> Open(const CudaDriver& driver, int index) {
  KVASIR_ASSIGN_OR_RETURN(const CudaGpu gpu, LookAt(driver, index));
  if (!gpu.missing.empty()) {
    return FailedPrecondition("a GPU lacks {}: name={}", fmt::join(gpu.missing, ", "),
                              gpu.facts.name);
  }
  CUdevice number = 0;
  KVASIR_RETURN_IF_ERROR(CudaError(driver, driver.cuDeviceGet(&number, index), "cuDeviceGet"));
  auto state = std::make_unique<CudaState>(driver, number);
  state->facts = gpu.facts;
  KVASIR_RETURN_IF_ERROR(CudaError(driver, driver.cuDevicePrimaryCtxRetain(&state->context, number),
                                   "cuDevicePrimaryCtxRetain"));
  KVASIR_RETURN_IF_ERROR(state->Enter());
  int highest = 0;
  KVASIR_RETURN_IF_ERROR(
      state->Check(driver.cuCtxGetStreamPriorityRange(&state->lowest_priority, &highest),
                   "cuCtxGetStreamPriorityRange"));
  const absl::Status code = kernels::cuda::CheckCopyRowsCode();
  if (!code.ok()) {
    return FailedPrecondition("a GPU lacks code in this build: name={} compute={}.{} error={}",
                              gpu.facts.name, gpu.facts.compute_major, gpu.facts.compute_minor,
                              MessageOf(code));
  }
  return std::make_unique<CudaDevice>(std::move(state));
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Device>>> OpenCudaDevices() {
  KVASIR_ASSIGN_OR_RETURN(const CudaDriver driver, LoadCudaDriver());
  KVASIR_ASSIGN_OR_RETURN(const int count, CountGpus(driver));
  std::vector<std::unique_ptr<Device>> devices;
  absl::Status refused;
  for (int index = 0; index < count; ++index) {
    absl::StatusOr<std::unique_ptr<Device>> device = Open(driver, index);
    if (device.ok()) {
      devices.push_back(*std::move(device));
    } else {
      refused = device.status();
    }
  }
  if (devices.empty()) return refused;
  return devices;
}

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const std::string& name) {
  KVASIR_ASSIGN_OR_RETURN(const CudaDriver driver, LoadCudaDriver());
  KVASIR_ASSIGN_OR_RETURN(const int count, CountGpus(driver));
  std::vector<std::string> seen;
  for (int index = 0; index < count; ++index) {
    KVASIR_ASSIGN_OR_RETURN(const CudaGpu gpu, LookAt(driver, index));
    if (name == gpu.facts.uuid || name == fmt::format("cuda:{}", index)) {
      return Open(driver, index);
    }
    seen.push_back(gpu.facts.uuid);
  }
  return NotFound("no GPU has this name: device={} seen={}", name, fmt::join(seen, ","));
}

}  // namespace kvasir::device
