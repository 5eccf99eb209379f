// The limits: a read and a copy of the same bytes within one process.
#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "bench/kernel_data.h"
#include "bench/peer.h"

namespace kvasir::bench {

void UnmapMemory::operator()(std::byte* memory) const { ::munmap(memory, bytes); }

PlainMemory MakePlainMemory(size_t bytes) {
  void* const memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  KVASIR_CHECK(memory != MAP_FAILED, "no memory: bytes={}", bytes);
  (void)::madvise(memory, bytes, MADV_NOHUGEPAGE);
  std::memset(memory, 1, bytes);
  return PlainMemory(static_cast<std::byte*>(memory), {bytes});
}

namespace {

class ReadLimit final : public Peer {
 public:
  explicit ReadLimit(const PeerData& data) : data_(data) {}
  absl::StatusOr<uint64_t> FetchPrefix() override { return ReadOnce(data_.prefix, kPrefixBytes); }
  absl::StatusOr<uint64_t> FetchLayer(uint64_t layer) override {
    (void)ReadOnce(data_.prefix + layer * kLayerBytes, kLayerBytes);
    return kNoSum;  // as many bytes in one piece, not those of a layer
  }
  absl::StatusOr<uint64_t> FetchSmall(uint64_t block) override {
    return ReadOnce(data_.small + block * kSmallBytes, kSmallBytes);
  }
  absl::Status Look(uint64_t) override { return MakeError(absl::StatusCode::kUnimplemented, ""); }
  absl::Status Store(bool) override {
    (void)ReadOnce(data_.prefix, kPrefixBytes);
    return absl::OkStatus();
  }

 private:
  const PeerData data_;
};

class Memcpy final : public Peer {
 public:
  explicit Memcpy(const PeerData& data) : data_(data), into_(MakePlainMemory(kPrefixBytes)) {}
  absl::StatusOr<uint64_t> FetchPrefix() override {
    return Copy(data_.prefix, kPrefixBytes, into_.get());
  }
  absl::StatusOr<uint64_t> FetchLayer(uint64_t layer) override {
    return Copy(data_.prefix + layer * kLayerBytes, kLayerBytes, into_.get());
  }
  absl::StatusOr<uint64_t> FetchSmall(uint64_t block) override {
    return Copy(data_.small + block * kSmallBytes, kSmallBytes, into_.get());
  }
  absl::Status Look(uint64_t) override { return MakeError(absl::StatusCode::kUnimplemented, ""); }
  absl::Status Store(bool) override {
    (void)Copy(data_.prefix, kPrefixBytes, into_.get());
    return absl::OkStatus();
  }

 private:
  static uint64_t Copy(const std::byte* from, uint64_t bytes, std::byte* into) {
    std::memcpy(into, from, bytes);
    // What nobody looks at could be left out by the compiler.
    asm volatile("" : : "r"(into) : "memory");
    return kNoSum;
  }
  const PeerData data_;
  const PlainMemory into_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> StartReadLimit(const PeerData& data) {
  return std::make_unique<ReadLimit>(data);
}
absl::StatusOr<std::unique_ptr<Peer>> StartMemcpy(const PeerData& data) {
  return std::make_unique<Memcpy>(data);
}

}  // namespace kvasir::bench
