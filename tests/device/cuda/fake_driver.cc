// A driver of memfds and threads in place of CUDA's, so that device/cuda is walked through where
// there is no GPU: which calls it makes, in which order, what it undoes. Says nothing about a GPU.
// Fresh memory is full of rubbish, and copies to where nothing is mapped end the process.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "device/cuda/cuda_driver-inl.h"
#include "device/word.h"
#include "tests/device/cuda/fake_gpu.h"
#include "tests/device/cuda/fake_stream.h"

// The driver's types are opaque: these are theirs here.
struct CUevent_st {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t recorded = 0, done = 0;
};

struct CUstream_st {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  bool busy = false, stopping = false;
  std::thread thread{[this] { Run(); }};

  void Put(std::function<void()> work) {
    const std::lock_guard<std::mutex> lock(mutex);
    queue.push_back(std::move(work));
    changed.notify_all();
  }
  void Drain() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return queue.empty() && !busy; });
  }
  void Run() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      const std::function<void()> work = std::move(queue.front());
      queue.pop_front();
      busy = true;
      lock.unlock();
      work();
      lock.lock();
      busy = false;
      changed.notify_all();
    }
  }
};

namespace kvasir::device {
namespace {

constexpr uint64_t kTotal = 64ULL << 20, kGranularity = 2ULL << 20;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;
std::atomic<uint64_t> used = 0;
std::atomic<int> compute_major = 9;

struct FakeMemory {
  int fd = -1;
  uint64_t bytes = 0;
  bool created = false;
};

void* Pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }
FakeMemory* Memory(CUmemGenericAllocationHandle handle) {
  return reinterpret_cast<FakeMemory*>(handle);
}
CUmemGenericAllocationHandle HandleOf(FakeMemory memory) {
  return reinterpret_cast<CUmemGenericAllocationHandle>(new FakeMemory(memory));
}
CUresult OkIf(bool good) { return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

void AddFacts(CudaDriver& driver) {
  driver.cuInit = [](unsigned) { return CUDA_SUCCESS; };
  driver.cuDriverGetVersion = [](int* version) { return *version = 13000, CUDA_SUCCESS; };
  driver.cuGetErrorName = [](CUresult, const char** name) {
    return *name = "an error of the fake", CUDA_SUCCESS;
  };
  driver.cuDeviceGetCount = [](int* count) { return *count = 1, CUDA_SUCCESS; };
  driver.cuDeviceGet = [](CUdevice* device, int index) { return *device = index, CUDA_SUCCESS; };
  driver.cuDeviceGetName = [](char* name, int bytes, CUdevice) {
    std::strncpy(name, "fake driver", static_cast<size_t>(bytes));
    return CUDA_SUCCESS;
  };
  driver.cuDeviceGetUuid = [](CUuuid* uuid, CUdevice) { return *uuid = {}, CUDA_SUCCESS; };
  driver.cuDeviceGetAttribute = [](int* value, CUdevice_attribute attribute, CUdevice) {
    const bool is_major = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    return *value = is_major ? compute_major.load() : 1, CUDA_SUCCESS;
  };
  driver.cuDeviceTotalMem = [](size_t* bytes, CUdevice) { return *bytes = kTotal, CUDA_SUCCESS; };
  driver.cuDevicePrimaryCtxRetain = [](CUcontext* context, CUdevice) {
    return *context = reinterpret_cast<CUcontext>(1), CUDA_SUCCESS;
  };
  driver.cuDevicePrimaryCtxRelease = [](CUdevice) {
    return OkIf(used.load() == 0);  // nobody looks; a debugger may
  };
  driver.cuCtxSetCurrent = [](CUcontext context) { return OkIf(context != nullptr); };
  driver.cuCtxGetStreamPriorityRange = [](int* least, int* greatest) {
    return *least = 0, *greatest = -5, CUDA_SUCCESS;
  };
}

void AddMemory(CudaDriver& driver) {
  driver.cuMemGetInfo = [](size_t* free, size_t* total) {
    return *total = kTotal, *free = kTotal - used.load(), CUDA_SUCCESS;
  };
  driver.cuMemGetAllocationGranularity = [](size_t* bytes, const CUmemAllocationProp*,
                                            CUmemAllocationGranularity_flags) {
    return *bytes = kGranularity, CUDA_SUCCESS;
  };
  driver.cuMemCreate = [](CUmemGenericAllocationHandle* handle, size_t bytes,
                          const CUmemAllocationProp* properties, unsigned long long flags) {
    if (bytes % kGranularity != 0 || flags != 0 ||
        properties->requestedHandleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (used.fetch_add(bytes) + bytes > kTotal) {
      used -= bytes;
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    const int fd = ::memfd_create("fake-driver", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const bool made =
        ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 && ::fcntl(fd, F_ADD_SEALS, kSeals) == 0;
    void* const map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    std::memset(map, 0xAB, bytes);
    ::munmap(map, bytes);
    *handle = HandleOf({fd, bytes, true});
    return OkIf(made);
  };
  driver.cuMemRelease = [](CUmemGenericAllocationHandle handle) {
    FakeMemory* const memory = Memory(handle);
    ::close(memory->fd);
    if (memory->created) used -= memory->bytes;
    delete memory;
    return CUDA_SUCCESS;
  };
  driver.cuMemAddressReserve = [](CUdeviceptr* address, size_t bytes, size_t, CUdeviceptr,
                                  unsigned long long) {
    void* const map = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *address = reinterpret_cast<CUdeviceptr>(map);
    return OkIf(map != MAP_FAILED);
  };
  driver.cuMemAddressFree = [](CUdeviceptr address, size_t bytes) {
    return OkIf(::munmap(Pointer(address), bytes) == 0);
  };
  driver.cuMemMap = [](CUdeviceptr address, size_t bytes, size_t offset,
                       CUmemGenericAllocationHandle handle, unsigned long long flags) {
    if (bytes != Memory(handle)->bytes || offset != 0 || flags != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return OkIf(::mmap(Pointer(address), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED,
                       Memory(handle)->fd, 0) != MAP_FAILED);
  };
  driver.cuMemUnmap = [](CUdeviceptr address, size_t bytes) {
    return OkIf(::mmap(Pointer(address), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                       -1, 0) != MAP_FAILED);
  };
  driver.cuMemSetAccess = [](CUdeviceptr address, size_t bytes, const CUmemAccessDesc* access,
                             size_t count) {
    const bool write = access->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return OkIf(count == 1 && ::mprotect(Pointer(address), bytes,
                                         write ? PROT_READ | PROT_WRITE : PROT_READ) == 0);
  };
  driver.cuMemExportToShareableHandle = [](void* fd, CUmemGenericAllocationHandle handle,
                                           CUmemAllocationHandleType, unsigned long long flags) {
    *static_cast<int*>(fd) = ::fcntl(Memory(handle)->fd, F_DUPFD_CLOEXEC, 0);
    return OkIf(flags == 0);
  };
  driver.cuMemImportFromShareableHandle = [](CUmemGenericAllocationHandle* handle, void* os_handle,
                                             CUmemAllocationHandleType) {
    const int fd = static_cast<int>(reinterpret_cast<uintptr_t>(os_handle));
    struct stat found {};
    if (::fcntl(fd, F_GET_SEALS) != kSeals || ::fstat(fd, &found) != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    // A reference of its own: the caller closes its descriptor.
    *handle =
        HandleOf({::fcntl(fd, F_DUPFD_CLOEXEC, 0), static_cast<uint64_t>(found.st_size), false});
    return CUDA_SUCCESS;
  };
  driver.cuMemGetAllocationPropertiesFromHandle = [](CUmemAllocationProp* properties,
                                                     CUmemGenericAllocationHandle) {
    *properties = {};
    properties->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    return CUDA_SUCCESS;
  };
  driver.cuMemAlloc = [](CUdeviceptr* address, size_t bytes) {
    *address = reinterpret_cast<CUdeviceptr>(std::malloc(bytes));
    std::memset(Pointer(*address), 0xAB, bytes);
    return CUDA_SUCCESS;
  };
  driver.cuMemFree = [](CUdeviceptr address) { return std::free(Pointer(address)), CUDA_SUCCESS; };
  driver.cuMemHostAlloc = [](void** host, size_t bytes, unsigned) {
    return *host = std::malloc(bytes), CUDA_SUCCESS;
  };
  driver.cuMemFreeHost = [](void* host) { return std::free(host), CUDA_SUCCESS; };
  driver.cuMemHostRegister = [](void*, size_t, unsigned) { return CUDA_SUCCESS; };
  driver.cuMemHostUnregister = [](void*) { return CUDA_SUCCESS; };
}

void AddCopies(CudaDriver& driver) {
  driver.cuMemcpyAsync = [](CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream) {
    stream->Put([=] { std::memcpy(Pointer(dst), Pointer(src), bytes); });
    return CUDA_SUCCESS;
  };
  driver.cuMemcpyBatchAsync = [](CUdeviceptr* dst, CUdeviceptr* src, size_t* bytes, size_t count,
                                 CUmemcpyAttributes* attributes, size_t* first, size_t attributed,
                                 CUstream stream) {
    if (attributed != 1 || *first != 0 ||
        attributes->srcAccessOrder != CU_MEMCPY_SRC_ACCESS_ORDER_STREAM) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; ++i) {
      stream->Put(
          [=, d = dst[i], s = src[i], n = bytes[i]] { std::memcpy(Pointer(d), Pointer(s), n); });
    }
    return CUDA_SUCCESS;
  };
  driver.cuMemcpy2DAsync = [](const CUDA_MEMCPY2D* wanted, CUstream stream) {
    if (wanted->srcMemoryType != CU_MEMORYTYPE_UNIFIED ||
        wanted->dstMemoryType != CU_MEMORYTYPE_UNIFIED || wanted->srcPitch < wanted->WidthInBytes ||
        wanted->dstPitch < wanted->WidthInBytes) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    stream->Put([copy = *wanted] {
      for (size_t row = 0; row < copy.Height; ++row) {
        std::memcpy(Pointer(copy.dstDevice + row * copy.dstPitch),
                    Pointer(copy.srcDevice + row * copy.srcPitch), copy.WidthInBytes);
      }
    });
    return CUDA_SUCCESS;
  };
  driver.cuMemsetD8Async = [](CUdeviceptr dst, unsigned char value, size_t bytes, CUstream stream) {
    stream->Put([=] { std::memset(Pointer(dst), value, bytes); });
    return CUDA_SUCCESS;
  };
}

void AddStreams(CudaDriver& driver) {
  driver.cuStreamCreateWithPriority = [](CUstream* stream, unsigned flags, int) {
    *stream = new CUstream_st;
    return OkIf(flags == CU_STREAM_NON_BLOCKING);
  };
  driver.cuStreamDestroy = [](CUstream stream) {
    {
      const std::lock_guard<std::mutex> lock(stream->mutex);
      stream->stopping = true;
      stream->changed.notify_all();
    }
    stream->thread.join();
    delete stream;
    return CUDA_SUCCESS;
  };
  driver.cuStreamSynchronize = [](CUstream stream) { return stream->Drain(), CUDA_SUCCESS; };
  driver.cuStreamWriteValue64 = [](CUstream stream, CUdeviceptr address, cuuint64_t value,
                                   unsigned flags) {
    stream->Put([=] { StoreWord(*static_cast<DeviceWord*>(Pointer(address)), value); });
    return OkIf(flags == CU_STREAM_WRITE_VALUE_DEFAULT);
  };
  driver.cuStreamWaitValue64 = [](CUstream stream, CUdeviceptr address, cuuint64_t value,
                                  unsigned flags) {
    stream->Put([=] {
      while (!WaitForWord(*static_cast<DeviceWord*>(Pointer(address)), value,
                          std::chrono::milliseconds(2))) {
      }
    });
    return OkIf(flags == CU_STREAM_WAIT_VALUE_GEQ);
  };
  driver.cuEventCreate = [](CUevent* event, unsigned) {
    return *event = new CUevent_st, CUDA_SUCCESS;
  };
  driver.cuEventDestroy = [](CUevent event) { return delete event, CUDA_SUCCESS; };
  driver.cuEventRecord = [](CUevent event, CUstream stream) {
    const std::lock_guard<std::mutex> lock(event->mutex);
    stream->Put([event, ticket = ++event->recorded] {
      const std::lock_guard<std::mutex> done(event->mutex);
      event->done = ticket;
      event->changed.notify_all();
    });
    return CUDA_SUCCESS;
  };
  driver.cuEventQuery = [](CUevent event) {
    const std::lock_guard<std::mutex> lock(event->mutex);
    return event->done >= event->recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  };
  driver.cuEventSynchronize = [](CUevent event) {
    std::unique_lock<std::mutex> lock(event->mutex);
    event->changed.wait(lock, [event] { return event->done >= event->recorded; });
    return CUDA_SUCCESS;
  };
  driver.cuStreamWaitEvent = [](CUstream stream, CUevent event, unsigned) {
    const std::lock_guard<std::mutex> now(event->mutex);
    stream->Put([event, ticket = event->recorded] {
      std::unique_lock<std::mutex> lock(event->mutex);
      event->changed.wait(lock, [=] { return event->done >= ticket; });
    });
    return CUDA_SUCCESS;
  };
}

}  // namespace

void PutOnFakeStream(CUstream_st* stream, std::function<void()> work) {
  stream->Put(std::move(work));
}

void SetFakeComputeMajor(int major) { compute_major = major; }

absl::StatusOr<CudaDriver> LoadCudaDriver() {
  CudaDriver driver;
  AddFacts(driver);
  AddMemory(driver);
  AddCopies(driver);
  AddStreams(driver);
  return driver;
}

}  // namespace kvasir::device
