// MappedRegion: a shared mapping of a file descriptor, unmapped by its owner.
#ifndef KVASIR_BASE_MAPPED_REGION_H_
#define KVASIR_BASE_MAPPED_REGION_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir {

enum class Access { kReadOnly, kReadWrite };

// Move-only. The mapping is MAP_SHARED, excluded from core dumps (MADV_DONTDUMP) and from children
// (MADV_DONTFORK). It does not need `fd` after Map().
class MappedRegion {
 public:
  // Errors: the kernel's, with the call's name and the size.
  static absl::StatusOr<MappedRegion> Map(const UniqueFd& fd, uint64_t bytes, Access access);

  MappedRegion() = default;
  MappedRegion(MappedRegion&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  MappedRegion& operator=(MappedRegion&& other) noexcept;
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;
  ~MappedRegion() { Unmap(); }

  // Pins the pages (mlock). Errors: kResourceExhausted when RLIMIT_MEMLOCK is too low.
  absl::Status Lock();

  // Unmaps the end from `bytes` on (a page multiple, at most bytes()).
  absl::Status ShrinkTo(uint64_t bytes);

  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  bool empty() const { return data_ == nullptr; }

 private:
  void Unmap();

  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_BASE_MAPPED_REGION_H_
