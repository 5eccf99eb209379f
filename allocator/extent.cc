#include "allocator/extent.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <numaif.h>

namespace kvasir {
namespace {

// A recent extent's holder may write, and so could cut it, were it not sealed.
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
// Holders of a kept one may only read: neither to cut it nor to add a seal is theirs.
constexpr int kKeptSeals = F_SEAL_GROW | F_SEAL_FUTURE_WRITE;

// Touches every page of a fresh mapping. MADV_POPULATE_WRITE reports a lack of memory as an error,
// where a plain store would be killed by SIGBUS; kernels before 5.14 do not have it.
absl::Status Populate(std::byte* data, uint64_t bytes) {
  if (::madvise(data, bytes, MADV_POPULATE_WRITE) == 0) return absl::OkStatus();
  if (errno != EINVAL) {
    const int error = errno == EFAULT || errno == EHWPOISON ? ENOMEM : errno;
    return ErrnoStatus(error, fmt::format("populate of {} bytes", bytes));
  }
  for (uint64_t at = 0; at < bytes; at += kPageBytes) data[at] = std::byte{0};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Extent>> Extent::Create(const Options& options, uint64_t id) {
  UniqueFd fd(
      ::memfd_create(fmt::format("kvasir-extent-{}", id).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoStatus(errno, "memfd_create");
  if (::fchmod(fd.get(), 0600) != 0) return ErrnoStatus(errno, "fchmod");
  if (::ftruncate(fd.get(), static_cast<off_t>(options.bytes)) != 0) {
    return ErrnoStatus(errno, fmt::format("ftruncate to {} bytes", options.bytes));
  }
  KVASIR_ASSIGN_OR_RETURN(MappedRegion map,
                          MappedRegion::Map(fd, options.bytes, Access::kReadWrite));
  if (options.transparent_huge_pages) {
    // Advice: where shmem huge pages are off the kernel says so at HostPool's start, not here.
    (void)::madvise(map.data(), map.bytes(), MADV_HUGEPAGE);
  }
  if (options.numa_node >= 0) {
    const unsigned long mask = 1UL << static_cast<unsigned>(options.numa_node);
    // The kernel takes one bit less than it is told of.
    if (::mbind(map.data(), map.bytes(), MPOL_BIND, &mask, sizeof(mask) * 8 + 1, 0) != 0) {
      return ErrnoStatus(errno, fmt::format("mbind to node {}", options.numa_node));
    }
  }
  if (options.prefault) KVASIR_RETURN_IF_ERROR(Populate(map.data(), map.bytes()));
  return std::unique_ptr<Extent>(new Extent(id, std::move(fd), std::move(map)));
}

absl::StatusOr<std::unique_ptr<Extent>> Extent::Adopt(UniqueFd fd, uint64_t bytes, uint64_t id) {
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) return ErrnoStatus(errno, "fstat");
  if (bytes == 0 || static_cast<uint64_t>(found.st_size) != bytes) {
    return FailedPrecondition("an extent has another size: id={} bytes={} expected={}", id,
                              found.st_size, bytes);
  }
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kKeptSeals) != kKeptSeals) {
    return FailedPrecondition("an extent is not sealed: id={} seals={:#x} expected={:#x}", id,
                              seals, kKeptSeals);
  }
  KVASIR_ASSIGN_OR_RETURN(MappedRegion map, MappedRegion::Map(fd, bytes, Access::kReadOnly));
  std::unique_ptr<Extent> extent(new Extent(id, std::move(fd), std::move(map)));
  extent->use_ = ExtentUse::kKept;
  extent->frozen_ = true;
  return extent;
}

absl::Status Extent::Shrink(uint64_t bytes) {
  if (bytes == map_.bytes()) return absl::OkStatus();
  if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0)
    return ErrnoStatus(errno, "ftruncate");
  return map_.ShrinkTo(bytes);
}

absl::Status Extent::Seal(ExtentUse use) {
  use_ = use;
  const int seals = use == ExtentUse::kKept ? kKeptSeals : kSizeSeals;
  if (::fcntl(fd_.get(), F_ADD_SEALS, seals) != 0) return ErrnoStatus(errno, "fcntl F_ADD_SEALS");
  return absl::OkStatus();
}

absl::Status Extent::SealSize() const {
  const int seals = ::fcntl(fd_.get(), F_GET_SEALS);
  if (seals >= 0 && (seals & kSizeSeals) == kSizeSeals) return absl::OkStatus();
  if (::fcntl(fd_.get(), F_ADD_SEALS, kSizeSeals) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "fcntl F_ADD_SEALS");
}

absl::Status Extent::TakeBack() {
  if (use_ == ExtentUse::kRecent) {
    if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                    static_cast<off_t>(map_.bytes())) != 0) {
      return ErrnoStatus(errno, "fallocate");
    }
  } else if (::ftruncate(fd_.get(), 0) != 0) {
    return ErrnoStatus(errno, "ftruncate");
  }
  {
    MutexLock lock(registering_);
    registrations_.clear();
  }
  map_ = MappedRegion();
  return absl::OkStatus();
}

absl::Status Extent::RegisterWith(device::Device& device) {
  MutexLock lock(registering_);
  std::unique_ptr<device::HostRegistration>& registration = registrations_[&device];
  if (registration != nullptr) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(registration,
                          device.RegisterHost(map_.data(), map_.bytes(), /*read_only=*/frozen_));
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> Extent::OpenForPeer() const {
  return Reopen(fd_, use_ == ExtentUse::kKept ? O_RDONLY : O_RDWR);
}

bool Extent::TouchFrozen(bool lock) {
  if (lock && map_.Lock().ok()) return true;
  return ::madvise(map_.data(), map_.bytes(), MADV_POPULATE_READ) == 0 && !lock;
}

absl::StatusOr<UniqueFd> Extent::Duplicate() const {
  UniqueFd copy(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return ErrnoStatus(errno, "fcntl F_DUPFD_CLOEXEC");
  return copy;
}

ProbeResult Extent::Probe() const {
  absl::StatusOr<UniqueFd> probe = Reopen(fd_, O_RDONLY);
  if (!probe.ok()) return ProbeResult::kHeld;  // no descriptor to ask with: nobody knows yet
  if (::fcntl(probe->get(), F_SETLEASE, F_WRLCK) == 0) {
    (void)::fcntl(probe->get(), F_SETLEASE, F_UNLCK);
    return ProbeResult::kFree;
  }
  return errno == EAGAIN ? ProbeResult::kHeld : ProbeResult::kUnsupported;
}

}  // namespace kvasir
