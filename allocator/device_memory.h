// DeviceMemory: a device that the daemon owns: its pool of bytes, and copies on streams of its own.
//
// Thread-safe. Owns the device. Extents that it gave are returned before it ends.
#ifndef KVASIR_ALLOCATOR_DEVICE_MEMORY_H_
#define KVASIR_ALLOCATOR_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mapped_region.h"
#include "base/mutex.h"
#include "device/device.h"
#include "device/device_pool.h"

namespace kvasir {

class DeviceMemory {
 public:
  struct Options {
    std::string name;         // by which people and engines name the pool
    uint64_t pool_bytes = 0;  // multiple of the device's granularity
    uint64_t first_extent_bytes = 4ULL << 20;
    uint64_t extent_bytes = 32ULL << 20;
  };

  // Errors: those of DevicePool::Create(); kResourceExhausted where the device has less free than
  // the pool is promised; the device's.
  static absl::StatusOr<std::unique_ptr<DeviceMemory>> Create(
      std::unique_ptr<device::Device> device, const Options& options);
  ~DeviceMemory();

  const Options& options() const { return options_; }
  const std::string& name() const { return options_.name; }
  const device::DeviceFacts& facts() const { return device_->facts(); }
  device::Device& device() { return *device_; }
  device::DevicePool& pool() { return *pool_; }
  const device::DevicePool& pool() const { return *pool_; }

  // Host memory that its streams may reach. Move-only; goes back to the pool of such buffers.
  class Staging {
   public:
    Staging(Staging&&) = default;
    Staging& operator=(Staging&&) = delete;
    ~Staging();
    std::byte* data() const { return buffer_->map.data(); }
    uint64_t bytes() const { return buffer_->map.bytes(); }

   private:
    friend class DeviceMemory;
    struct Buffer {
      MappedRegion map;
      std::unique_ptr<device::HostRegistration> registration;  // ends first
    };
    Staging(DeviceMemory& memory, std::unique_ptr<Buffer> buffer)
        : memory_(memory), buffer_(std::move(buffer)) {}
    DeviceMemory& memory_;
    std::unique_ptr<Buffer> buffer_;  // null: moved from
  };
  // At least `bytes`. Errors: the kernel's, the device's. Cost: nothing where one is spare, else
  // pinning it, some 100 us a MiB. There are no more than callers at once.
  absl::StatusOr<Staging> Borrow(uint64_t bytes);

  // Copies and waits for it; addresses of the device and of its staging. What follows of it, in
  // whatever stream or process, sees the bytes. Errors: those of DeviceStream::Copy();
  // kUnavailable, the device is lost. Cost: a stream, which is kept for the next call; the copy.
  absl::Status Copy(std::span<const device::CopyPiece> pieces);

  // Gathers rows likewise, inside the device. Errors: those of DeviceStream::GatherRows().
  absl::Status Gather(std::span<const device::RowGather> gathers);

  // Copies between the device and the caller's memory, by way of staging. Errors: as Copy().
  absl::Status Read(const std::byte* from, std::span<std::byte> to);
  absl::Status Write(std::span<const std::byte> from, std::byte* to);

 private:
  DeviceMemory(std::unique_ptr<device::Device> device, const Options& options)
      : options_(options), device_(std::move(device)) {}

  // Has `put` put work into a stream of its own, and waits for it.
  template <typename Put>
  absl::Status Through(const Put& put);

  const Options options_;
  const std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::DevicePool> pool_;
  Mutex mutex_;  // leaf lock; not held over a copy
  std::vector<std::unique_ptr<Staging::Buffer>> spare_buffers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<device::DeviceStream>> spare_streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_DEVICE_MEMORY_H_
