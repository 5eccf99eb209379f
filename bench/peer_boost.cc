// Boost.Interprocess: a managed shared memory with a named array for each block, that readers find
// by name and read in place. What one would build on it has no tenants, budgets or eviction; names
// are found under a lock in that memory, and who dies with it stops all others.
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <boost/interprocess/managed_shared_memory.hpp>

#include "base/error.h"
#include "base/status_macros.h"
#include "bench/kernel_data.h"
#include "bench/peer.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

namespace ipc = boost::interprocess;

constexpr uint64_t kSegmentBytes = kPrefixBytes + kSmallBlocks * kSmallBytes + 8 * kMiB;

std::string BlockName(uint64_t block) { return fmt::format("block:{}", block); }
std::string SmallName(uint64_t block) { return fmt::format("small:{}", block); }

class BoostPeer final : public Peer {
 public:
  static absl::StatusOr<std::unique_ptr<Peer>> Start(const PeerData& data) {
    std::unique_ptr<BoostPeer> peer(new BoostPeer(fmt::format("kvasir-bench-{}", ::getpid())));
    peer->made_ = true;
    ipc::shared_memory_object::remove(peer->name_.c_str());
    peer->segment_ =
        ipc::managed_shared_memory(ipc::create_only, peer->name_.c_str(), kSegmentBytes);
    peer->data_ = data;
    for (uint64_t block = 0; block < kBlocks; ++block) {
      peer->segment_.construct<char>(BlockName(block).c_str())[kBlockBytes]();
    }
    KVASIR_RETURN_IF_ERROR(peer->Store(false));
    for (uint64_t block = 0; block < kSmallBlocks; ++block) {
      char* const into = peer->segment_.construct<char>(SmallName(block).c_str())[kSmallBytes]();
      std::memcpy(into, data.small + block * kSmallBytes, kSmallBytes);
    }
    return std::unique_ptr<Peer>(std::move(peer));
  }
  static absl::StatusOr<std::unique_ptr<Peer>> Join(const std::string& name) {
    std::unique_ptr<BoostPeer> peer(new BoostPeer(name));
    peer->segment_ = ipc::managed_shared_memory(ipc::open_only, name.c_str());
    return std::unique_ptr<Peer>(std::move(peer));
  }
  ~BoostPeer() override {
    if (made_) ipc::shared_memory_object::remove(name_.c_str());
  }

  absl::StatusOr<uint64_t> FetchPrefix() override {
    uint64_t sum = 0;
    for (uint64_t block = 0; block < kBlocks; ++block) {
      KVASIR_ASSIGN_OR_RETURN(const std::byte* const at, Find(BlockName(block)));
      sum += ReadOnce(at, kBlockBytes);
    }
    return sum;
  }
  absl::StatusOr<uint64_t> FetchLayer(uint64_t layer) override {
    uint64_t sum = 0;
    for (uint64_t block = 0; block < kBlocks; ++block) {
      KVASIR_ASSIGN_OR_RETURN(const std::byte* const at, Find(BlockName(block)));
      sum += ReadOnce(at + layer * kSliceBytes, kSliceBytes);
    }
    return sum;
  }
  absl::StatusOr<uint64_t> FetchSmall(uint64_t block) override {
    KVASIR_ASSIGN_OR_RETURN(const std::byte* const at, Find(SmallName(block)));
    return ReadOnce(at, kSmallBytes);
  }
  absl::Status Look(uint64_t block) override { return Find(SmallName(block)).status(); }
  absl::Status Store(bool) override {
    for (uint64_t block = 0; block < kBlocks; ++block) {
      KVASIR_ASSIGN_OR_RETURN(std::byte* const into, Find(BlockName(block)));
      std::memcpy(into, data_.prefix + block * kBlockBytes, kBlockBytes);
    }
    return absl::OkStatus();
  }
  std::string address() const override { return name_; }

 private:
  explicit BoostPeer(std::string name) : name_(std::move(name)) {}
  absl::StatusOr<std::byte*> Find(const std::string& name) {
    char* const found = segment_.find<char>(name.c_str()).first;
    if (found == nullptr) return NotFound("not in the shared memory: name={}", name);
    return reinterpret_cast<std::byte*>(found);
  }

  const std::string name_;
  bool made_ = false;
  ipc::managed_shared_memory segment_;
  PeerData data_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> StartBoost(const PeerData& data) {
  return BoostPeer::Start(data);
}
absl::StatusOr<std::unique_ptr<Peer>> JoinBoost(const std::string& address) {
  return BoostPeer::Join(address);
}

}  // namespace kvasir::bench
