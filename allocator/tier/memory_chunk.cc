#include "allocator/tier/memory_chunk.h"

#include <errno.h>
#include <sys/mman.h>

#include <utility>

#include "base/bytes.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

absl::Status Advise(std::byte* data, uint64_t bytes, int advice, const char* name) {
  if (::madvise(data, bytes, advice) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, fmt::format("madvise {} of {} bytes", name, bytes));
}

}  // namespace

absl::StatusOr<MemoryChunk> MemoryChunk::Map(uint64_t bytes, const MemoryUse& use) {
  // More than is wanted, so that a huge page begins in it; both ends go back.
  const uint64_t mapped = bytes + kHugePageBytes;
  void* address =
      ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return ErrnoStatus(errno, fmt::format("mmap of {} bytes", mapped));
  auto* const base = static_cast<std::byte*>(address);
  const auto at = reinterpret_cast<uintptr_t>(base);
  const uint64_t before = RoundUp(at, kHugePageBytes) - at;
  if (before > 0) (void)::munmap(base, before);
  if (before < kHugePageBytes) (void)::munmap(base + before + bytes, kHugePageBytes - before);

  MemoryChunk chunk;
  chunk.data_ = base + before;
  chunk.bytes_ = bytes;
  (void)::madvise(chunk.data_, bytes, MADV_DONTDUMP);
  (void)::madvise(chunk.data_, bytes, MADV_DONTFORK);
  if (use.huge_pages) (void)::madvise(chunk.data_, bytes, MADV_HUGEPAGE);
  if (use.touch) {
    KVASIR_RETURN_IF_ERROR(Advise(chunk.data_, bytes, MADV_POPULATE_WRITE, "POPULATE_WRITE"));
  }
  if (use.lock && ::mlock(chunk.data_, bytes) != 0) {
    return ErrnoStatus(errno == EPERM || errno == EAGAIN ? ENOMEM : errno,
                       fmt::format("mlock of {} bytes (RLIMIT_MEMLOCK)", bytes));
  }
  return chunk;
}

MemoryChunk& MemoryChunk::operator=(MemoryChunk&& other) noexcept {
  if (this != &other) {
    Unmap();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void MemoryChunk::Unmap() {
  if (data_ != nullptr) (void)::munmap(data_, bytes_);
}

}  // namespace kvasir
