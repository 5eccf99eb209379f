#include "daemon/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status_macros.h"

namespace kvasir {

absl::StatusOr<Segment> Segment::Create(const std::string& name, uint64_t bytes) {
  Segment segment;
  segment.fd = UniqueFd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!segment.fd) return ErrnoStatus(errno, "memfd_create");
  if (::fchmod(segment.fd.get(), 0600) != 0) return ErrnoStatus(errno, "fchmod");
  if (::ftruncate(segment.fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, "ftruncate");
  }
  if (::fcntl(segment.fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "fcntl F_ADD_SEALS");
  }
  KVASIR_ASSIGN_OR_RETURN(segment.map, MappedRegion::Map(segment.fd, bytes, Access::kReadWrite));
  return segment;
}

}  // namespace kvasir
