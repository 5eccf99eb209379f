#include "allocator/device_memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

// Buffers are multiples of it, so that groups of several models share them.
constexpr uint64_t kStagingBytes = kMiB;

absl::StatusOr<MappedRegion> MapFresh(uint64_t bytes) {
  UniqueFd fd(::memfd_create("kvasir-device-staging", MFD_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, "memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, "ftruncate");
  }
  return MappedRegion::Map(fd, bytes, Access::kReadWrite);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMemory>> DeviceMemory::Create(
    std::unique_ptr<device::Device> device, const Options& options) {
  std::unique_ptr<DeviceMemory> memory(new DeviceMemory(std::move(device), options));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t free, memory->device_->FreeBytes());
  if (options.pool_bytes > free) {
    return ResourceExhausted(
        "the device has less than its pool is promised: pool={} pool_bytes={} free_bytes={} "
        "device={}",
        options.name, options.pool_bytes, free, memory->facts().name);
  }
  KVASIR_ASSIGN_OR_RETURN(memory->pool_,
                          device::DevicePool::Create(*memory->device_, options.pool_bytes));
  return memory;
}

DeviceMemory::~DeviceMemory() {
  MutexLock lock(mutex_);
  spare_streams_.clear();  // before what they might still reach
  spare_buffers_.clear();
}

DeviceMemory::Staging::~Staging() {
  if (buffer_ == nullptr) return;
  MutexLock lock(memory_.mutex_);
  memory_.spare_buffers_.push_back(std::move(buffer_));
}

absl::StatusOr<DeviceMemory::Staging> DeviceMemory::Borrow(uint64_t bytes) {
  {
    MutexLock lock(mutex_);
    for (std::unique_ptr<Staging::Buffer>& spare : spare_buffers_) {
      if (spare->map.bytes() < bytes) continue;
      std::swap(spare, spare_buffers_.back());
      std::unique_ptr<Staging::Buffer> found = std::move(spare_buffers_.back());
      spare_buffers_.pop_back();
      return Staging(*this, std::move(found));
    }
    // The next one is larger: it does for what this one did for.
    if (!spare_buffers_.empty()) spare_buffers_.pop_back();
  }
  auto buffer = std::make_unique<Staging::Buffer>();
  KVASIR_ASSIGN_OR_RETURN(buffer->map, MapFresh(RoundUp(bytes, kStagingBytes)));
  KVASIR_ASSIGN_OR_RETURN(buffer->registration,
                          device_->RegisterHost(buffer->map.data(), buffer->map.bytes(),
                                                /*read_only=*/false));
  return Staging(*this, std::move(buffer));
}

template <typename Put>
absl::Status DeviceMemory::Through(const Put& put) {
  std::unique_ptr<device::DeviceStream> stream;
  {
    MutexLock lock(mutex_);
    if (!spare_streams_.empty()) {
      stream = std::move(spare_streams_.back());
      spare_streams_.pop_back();
    }
  }
  if (stream == nullptr) {
    KVASIR_ASSIGN_OR_RETURN(stream, device_->MakeStream(device::StreamPriority::kLowest));
  }
  KVASIR_RETURN_IF_ERROR(put(*stream));
  KVASIR_RETURN_IF_ERROR(stream->Synchronize());
  MutexLock lock(mutex_);
  spare_streams_.push_back(std::move(stream));  // no more than calls were under way at once
  return absl::OkStatus();
}

absl::Status DeviceMemory::Copy(std::span<const device::CopyPiece> pieces) {
  if (pieces.empty()) return absl::OkStatus();
  return Through([&](device::DeviceStream& stream) { return stream.Copy(pieces); });
}

absl::Status DeviceMemory::Gather(std::span<const device::RowGather> gathers) {
  if (gathers.empty()) return absl::OkStatus();
  return Through([&](device::DeviceStream& stream) { return stream.GatherRows(gathers); });
}

absl::Status DeviceMemory::Read(const std::byte* from, std::span<std::byte> to) {
  if (to.empty()) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(const Staging staging, Borrow(to.size()));
  const device::CopyPiece piece{staging.data(), from, to.size()};
  KVASIR_RETURN_IF_ERROR(Copy(std::span(&piece, 1)));
  std::memcpy(to.data(), staging.data(), to.size());
  return absl::OkStatus();
}

absl::Status DeviceMemory::Write(std::span<const std::byte> from, std::byte* to) {
  if (from.empty()) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(const Staging staging, Borrow(from.size()));
  std::memcpy(staging.data(), from.data(), from.size());
  const device::CopyPiece piece{to, staging.data(), from.size()};
  return Copy(std::span(&piece, 1));
}

}  // namespace kvasir
