// MemoryChunk: private memory in one piece that begins at a huge page.
#ifndef KVASIR_ALLOCATOR_TIER_MEMORY_CHUNK_H_
#define KVASIR_ALLOCATOR_TIER_MEMORY_CHUNK_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include <absl/status/statusor.h>

namespace kvasir {

struct MemoryUse {
  bool touch = false;       // fault the pages in now, not at the first write
  bool lock = false;        // mlock: kResourceExhausted where RLIMIT_MEMLOCK is too low
  bool huge_pages = false;  // ask for transparent huge pages; the kernel may not have any
};

// Move-only; moved-from is empty. Excluded from core dumps and from children.
class MemoryChunk {
 public:
  static constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

  // Zero bytes, `bytes` of them, a page multiple. Errors: the kernel's, with call and size.
  static absl::StatusOr<MemoryChunk> Map(uint64_t bytes, const MemoryUse& use);

  MemoryChunk() = default;
  MemoryChunk(MemoryChunk&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryChunk& operator=(MemoryChunk&& other) noexcept;
  MemoryChunk(const MemoryChunk&) = delete;
  MemoryChunk& operator=(const MemoryChunk&) = delete;
  ~MemoryChunk() { Unmap(); }

  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void Unmap();

  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_MEMORY_CHUNK_H_
