#include <set>
#include <utility>

#include "eviction/blockwise_policy.h"
#include "eviction/fixed_policies.h"

namespace kvasir::eviction {
namespace {

class Belady final : public BlockwisePolicy {
 public:
  Belady(uint32_t capacity, std::vector<uint32_t> next_uses, bool pin)
      : BlockwisePolicy(capacity, 0, pin), next_uses_(std::move(next_uses)) {}
  std::string_view name() const override { return "belady"; }

  uint64_t MetadataBytes() const override {
    constexpr uint64_t kNodeBytes = sizeof(std::pair<uint32_t, BlockId>) + 4 * sizeof(void*);
    return BlockwisePolicy::MetadataBytes() +
           (next_uses_.capacity() + next_.capacity()) * sizeof(uint32_t) +
           order_.size() * kNodeBytes;
  }

 protected:
  void Hit(BlockId block) override {
    order_.erase({next_[block], block});
    List(block, NextUse());
  }

  bool Miss(BlockId block, bool) override {
    const uint32_t next = NextUse();
    if (next == kNeverUsed) return false;
    if (Full()) {
      const BlockId victim = Latest();
      if (victim == kNoBlock || next_[victim] <= next) return false;
      Drop(victim);
    }
    if (block >= next_.size()) next_.resize(size_t{block} + 1);
    List(block, next);
    return true;
  }

  bool DropOne() override {
    const BlockId victim = Latest();
    if (victim == kNoBlock) return false;
    Drop(victim);
    return true;
  }

 private:
  uint32_t NextUse() { return access_ < next_uses_.size() ? next_uses_[access_++] : kNeverUsed; }

  void List(BlockId block, uint32_t next) {
    next_[block] = next;
    order_.insert({next, block});
  }

  BlockId Latest() const {
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
      if (!Pinned(it->second)) return it->second;
    }
    return kNoBlock;
  }

  void Drop(BlockId block) {
    order_.erase({next_[block], block});
    Evict(block, "belady");
    Forget(block);
  }

  std::vector<uint32_t> next_uses_;
  size_t access_ = 0;
  std::vector<uint32_t> next_;  // by block
  std::set<std::pair<uint32_t, BlockId>> order_;
};

}  // namespace

std::vector<uint32_t> NextUses(std::span<const ChainKey> accesses) {
  BlockIndex seen(static_cast<uint32_t>(accesses.size()));
  std::vector<uint32_t> next(accesses.size(), kNeverUsed);
  std::vector<uint32_t> last;  // access by block
  for (size_t i = accesses.size(); i-- > 0;) {
    BlockId block = seen.Find(accesses[i]);
    if (block == kNoBlock) {
      block = seen.Insert(accesses[i], kNoBlock);
      last.push_back(0);
    } else {
      next[i] = last[block];
    }
    last[block] = static_cast<uint32_t>(i);
  }
  return next;
}

std::unique_ptr<EvictionPolicy> MakeBelady(uint32_t capacity, std::vector<uint32_t> next_uses,
                                           bool pin) {
  return std::make_unique<Belady>(capacity, std::move(next_uses), pin);
}

}  // namespace kvasir::eviction
