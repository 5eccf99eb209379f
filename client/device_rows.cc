#include "client/device_rows.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "base/bytes.h"
#include "base/error.h"
#include "base/mapped_region.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

// Memory that the device may reach, for one copy.
struct Staging {
  MappedRegion map;
  std::unique_ptr<device::HostRegistration> registration;
  std::unique_ptr<device::DeviceStream> stream;  // ends first
};

absl::StatusOr<Staging> MakeStaging(device::Device& device, uint64_t bytes) {
  const uint64_t whole = RoundUp(bytes, kPageBytes);
  UniqueFd fd(::memfd_create("kvasir-client-staging", MFD_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, "memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(whole)) != 0) return ErrnoStatus(errno, "ftruncate");
  Staging staging;
  KVASIR_ASSIGN_OR_RETURN(staging.map, MappedRegion::Map(fd, whole, Access::kReadWrite));
  KVASIR_ASSIGN_OR_RETURN(staging.registration,
                          device.RegisterHost(staging.map.data(), whole, /*read_only=*/false));
  KVASIR_ASSIGN_OR_RETURN(staging.stream, device.MakeStream(device::StreamPriority::kNormal));
  return staging;
}

}  // namespace

absl::Status ReadDevice(device::Device& device, const std::byte* from, std::span<std::byte> to) {
  if (to.empty()) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(const Staging staging, MakeStaging(device, to.size()));
  const device::CopyPiece piece{staging.map.data(), from, to.size()};
  KVASIR_RETURN_IF_ERROR(staging.stream->Copy(std::span(&piece, 1)));
  KVASIR_RETURN_IF_ERROR(staging.stream->Synchronize());
  std::memcpy(to.data(), staging.map.data(), to.size());
  return absl::OkStatus();
}

absl::Status WriteDevice(device::Device& device, std::span<const std::byte> from, std::byte* to) {
  if (from.empty()) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(const Staging staging, MakeStaging(device, from.size()));
  std::memcpy(staging.map.data(), from.data(), from.size());
  const device::CopyPiece piece{to, staging.map.data(), from.size()};
  KVASIR_RETURN_IF_ERROR(staging.stream->Copy(std::span(&piece, 1)));
  return staging.stream->Synchronize();
}

}  // namespace kvasir
