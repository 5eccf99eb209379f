#include "base/mapped_region.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/error.h"

#include <fmt/format.h>

namespace kvasir {

absl::StatusOr<MappedRegion> MappedRegion::Map(const UniqueFd& fd, uint64_t bytes, Access access) {
  const int protection = access == Access::kReadOnly ? PROT_READ : PROT_READ | PROT_WRITE;
  void* address = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return ErrnoStatus(errno, fmt::format("mmap of {} bytes", bytes));
  MappedRegion region;
  region.data_ = static_cast<std::byte*>(address);
  region.bytes_ = bytes;
  if (::madvise(address, bytes, MADV_DONTDUMP) != 0) return ErrnoStatus(errno, "madvise DONTDUMP");
  if (::madvise(address, bytes, MADV_DONTFORK) != 0) return ErrnoStatus(errno, "madvise DONTFORK");
  return region;
}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  if (this != &other) {
    Unmap();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

absl::Status MappedRegion::Lock() {
  if (::mlock(data_, bytes_) == 0) return absl::OkStatus();
  const int error = errno;
  if (error == ENOMEM || error == EPERM || error == EAGAIN) {
    return ResourceExhausted(
        "memory cannot be locked, RLIMIT_MEMLOCK is too low: bytes={} errno={}", bytes_, error);
  }
  return ErrnoStatus(error, "mlock");
}

absl::Status MappedRegion::ShrinkTo(uint64_t bytes) {
  if (bytes < bytes_ && ::munmap(data_ + bytes, bytes_ - bytes) != 0) {
    return ErrnoStatus(errno, "munmap");
  }
  bytes_ = bytes;
  return absl::OkStatus();
}

void MappedRegion::Unmap() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace kvasir
