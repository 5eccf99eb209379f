#include "device/host/host_device.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/mapped_region.h"
#include "base/status_macros.h"
#include "device/host/host_state.h"
#include "device/host/host_stream.h"

#include <fmt/format.h>

namespace kvasir::device {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

class HostExtent final : public DeviceExtent {
 public:
  // `fd` is empty where the extent is imported.
  HostExtent(HostState& state, uint64_t id, uint64_t bytes, Access access, MappedRegion map,
             UniqueFd fd)
      : state_(state),
        id_(id),
        bytes_(bytes),
        access_(access),
        map_(std::move(map)),
        fd_(std::move(fd)),
        shown_(map_.data()) {}

  // Makes it known to streams; else it is none yet. Errors: kResourceExhausted.
  absl::Status Show(bool hides) {
    if (hides) {
      void* const shown = ::mmap(nullptr, map_.bytes(), PROT_NONE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (shown == MAP_FAILED) return ErrnoStatus(errno, "mmap");
      shown_ = static_cast<std::byte*>(shown);
      state_.Hide(shown_, map_.bytes(), map_.data());
    }
    KVASIR_RETURN_IF_ERROR(state_.ranges.Add(shown_, map_.bytes(), access_, false));
    known_ = true;
    return absl::OkStatus();
  }

  ~HostExtent() override {
    const uint64_t charged = map_.bytes();
    if (known_) state_.ranges.Remove(shown_);
    if (shown_ != map_.data()) {
      state_.Unhide(shown_);
      (void)::munmap(shown_, charged);
    }
    map_ = MappedRegion();
    if (!fd_ || !known_) return;  // who could not make it uncharges it
    absl::StatusOr<UniqueFd> probe = Reopen(fd_, O_RDONLY);
    fd_.reset();
    if (probe.ok()) {
      state_.Leave(*std::move(probe), charged);
    } else {
      state_.Uncharge(charged);  // nothing to ask the kernel with
    }
  }

  uint64_t id() const override { return id_; }
  std::byte* address() const override { return shown_; }
  uint64_t bytes() const override { return bytes_; }
  uint64_t charged_bytes() const override { return map_.bytes(); }
  Access access() const override { return access_; }

  absl::StatusOr<UniqueFd> ExportFd() const override {
    KVASIR_RETURN_IF_ERROR(state_.Health());
    if (!fd_) return FailedPrecondition("ExportFd: the extent is imported: bytes={}", bytes_);
    // A file of its own: Reap() then sees who holds it.
    return Reopen(fd_, O_RDWR);
  }

 private:
  HostState& state_;
  const uint64_t id_, bytes_;
  const Access access_;
  MappedRegion map_;
  UniqueFd fd_;
  std::byte* shown_;
  bool known_ = false;
};

class Registration final : public HostRegistration {
 public:
  Registration(HostState& state, std::byte* data, bool read_only)
      : state_(state), data_(data), read_only_(read_only) {}
  ~Registration() override { state_.ranges.Remove(data_); }
  bool read_only() const override { return read_only_; }

 private:
  HostState& state_;
  std::byte* const data_;
  const bool read_only_;
};

absl::Status CheckBytes(const char* call, uint64_t bytes, const DeviceFacts& facts) {
  if (bytes > 0 && bytes <= facts.total_bytes) return absl::OkStatus();
  return InvalidArgument("{}: bytes out of bounds: bytes={} min=1 max={}", call, bytes,
                         facts.total_bytes);
}

absl::StatusOr<UniqueFd> MakeFile(uint64_t bytes, uint64_t id) {
  UniqueFd fd(
      ::memfd_create(fmt::format("kvasir-device-{}", id).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoStatus(errno, "memfd_create");
  if (::fchmod(fd.get(), 0600) != 0) return ErrnoStatus(errno, "fchmod");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, fmt::format("ftruncate to {} bytes", bytes));
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return ErrnoStatus(errno, "fcntl F_ADD_SEALS");
  return fd;
}

// Whether a test has asked for one more fault of this kind.
bool TakeFault(std::atomic<uint64_t>& faults) {
  for (uint64_t left = faults.load(); left > 0;) {
    if (faults.compare_exchange_weak(left, left - 1)) return true;
  }
  return false;
}

// A lack of memory is an error here, where a later store would be killed by SIGBUS.
absl::Status Populate(const MappedRegion& map) {
  if (::madvise(map.data(), map.bytes(), MADV_POPULATE_WRITE) == 0 || errno == EINVAL) {
    return absl::OkStatus();
  }
  return ResourceExhausted("CreateExtent: the host has no memory for it: charged_bytes={} errno={}",
                           map.bytes(), errno);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostDevice>> HostDevice::Create(const HostDeviceOptions& options) {
  if (options.granularity_bytes == 0 || options.granularity_bytes % kPageBytes != 0 ||
      options.granularity_bytes > options.total_bytes) {
    return InvalidArgument(
        "HostDevice: granularity_bytes is a multiple of the page, at most total_bytes: "
        "granularity_bytes={} page_bytes={} total_bytes={}",
        options.granularity_bytes, kPageBytes, options.total_bytes);
  }
  return std::unique_ptr<HostDevice>(new HostDevice(options));
}

HostDevice::HostDevice(const HostDeviceOptions& options)
    : state_(new HostState), hides_extents_(options.hides_extents) {
  DeviceFacts& facts = state_->facts;
  facts.name = options.name;
  facts.uuid = options.uuid;
  facts.kind = DeviceKind::kHost;
  facts.total_bytes = RoundDown(options.total_bytes, options.granularity_bytes);
  facts.granularity_bytes = options.granularity_bytes;
  facts.read_only_registration = true;
}

HostDevice::~HostDevice() = default;

const DeviceFacts& HostDevice::facts() const { return state_->facts; }

absl::StatusOr<uint64_t> HostDevice::FreeBytes() {
  KVASIR_RETURN_IF_ERROR(state_->Health());
  return state_->FreeBytes();
}

absl::Status HostDevice::Health() { return state_->Health(); }

absl::StatusOr<std::unique_ptr<DeviceExtent>> HostDevice::CreateExtent(uint64_t bytes,
                                                                       uint64_t id) {
  KVASIR_RETURN_IF_ERROR(state_->Health());
  KVASIR_RETURN_IF_ERROR(CheckBytes("CreateExtent", bytes, facts()));
  const uint64_t charged = RoundUp(bytes, facts().granularity_bytes);
  if (TakeFault(state_->create_faults)) {
    return ResourceExhausted("CreateExtent: refused, as a test asked for: charged_bytes={}",
                             charged);
  }
  KVASIR_RETURN_IF_ERROR(state_->Charge(charged));
  absl::StatusOr<std::unique_ptr<DeviceExtent>> made =
      [&]() -> absl::StatusOr<std::unique_ptr<DeviceExtent>> {
    KVASIR_ASSIGN_OR_RETURN(UniqueFd fd, MakeFile(charged, id));
    KVASIR_ASSIGN_OR_RETURN(MappedRegion map, MappedRegion::Map(fd, charged, Access::kReadWrite));
    KVASIR_RETURN_IF_ERROR(Populate(map));
    auto extent = std::make_unique<HostExtent>(*state_, id, bytes, Access::kReadWrite,
                                               std::move(map), std::move(fd));
    KVASIR_RETURN_IF_ERROR(extent->Show(hides_extents_));
    return extent;
  }();
  if (!made.ok()) state_->Uncharge(charged);
  return made;
}

absl::StatusOr<std::unique_ptr<DeviceExtent>> HostDevice::ImportExtent(UniqueFd fd, uint64_t bytes,
                                                                       Access access) {
  KVASIR_RETURN_IF_ERROR(state_->Health());
  KVASIR_RETURN_IF_ERROR(CheckBytes("ImportExtent", bytes, facts()));
  const uint64_t charged = RoundUp(bytes, facts().granularity_bytes);
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0 || !S_ISREG(found.st_mode) ||
      static_cast<uint64_t>(found.st_size) != charged) {
    return InvalidArgument("ImportExtent: fd is no extent of that size: fd={} bytes={} charged={}",
                           fd.get(), found.st_size, charged);
  }
  if (TakeFault(state_->import_faults)) {
    return ResourceExhausted("ImportExtent: refused, as a test asked for: charged_bytes={}",
                             charged);
  }
  // Without the seals its sender could cut it, and our next read would be SIGBUS.
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) {
    return InvalidArgument("ImportExtent: fd is not sealed: seals={:#x} expected={:#x}", seals,
                           kSeals);
  }
  KVASIR_ASSIGN_OR_RETURN(MappedRegion map, MappedRegion::Map(fd, charged, access));
  auto extent = std::make_unique<HostExtent>(*state_, 0, bytes, access, std::move(map), UniqueFd());
  KVASIR_RETURN_IF_ERROR(extent->Show(hides_extents_));
  return extent;
}

absl::StatusOr<std::unique_ptr<DeviceStream>> HostDevice::MakeStream(StreamPriority /*priority*/) {
  KVASIR_RETURN_IF_ERROR(state_->Health());
  return std::make_unique<HostStream>(*state_);
}

absl::StatusOr<std::shared_ptr<DeviceEvent>> HostDevice::MakeEvent() {
  KVASIR_RETURN_IF_ERROR(state_->Health());
  return std::make_shared<HostEvent>(*state_);
}

absl::StatusOr<std::unique_ptr<HostRegistration>> HostDevice::RegisterHost(std::byte* data,
                                                                           uint64_t bytes,
                                                                           bool read_only) {
  KVASIR_RETURN_IF_ERROR(state_->Health());
  if (bytes == 0 || bytes % kPageBytes != 0 || reinterpret_cast<uint64_t>(data) % kPageBytes != 0) {
    return InvalidArgument("RegisterHost: whole pages only: address={:#x} bytes={} page_bytes={}",
                           reinterpret_cast<uint64_t>(data), bytes, kPageBytes);
  }
  KVASIR_RETURN_IF_ERROR(
      state_->ranges.Add(data, bytes, read_only ? Access::kReadOnly : Access::kReadWrite, true));
  return std::make_unique<Registration>(*state_, data, read_only);
}

void HostDevice::FailCreatesForTest(uint64_t count) { state_->create_faults = count; }

void HostDevice::FailImportsForTest(uint64_t count) { state_->import_faults = count; }

void HostDevice::FailCopiesForTest(uint64_t skip, uint64_t count) {
  state_->copies_before_fault = skip;
  state_->copy_faults = count;
}

void HostDevice::HoldForTest(bool hold) { state_->hold = hold; }

void HostDevice::LoseForTest(const std::string& reason) { state_->Lose(reason); }

}  // namespace kvasir::device
