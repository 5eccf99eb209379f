#include <map>

#include "eviction/blockwise_policy.h"
#include "eviction/fixed_policies.h"

namespace kvasir::eviction {
namespace {

class Lfu final : public BlockwisePolicy {
 public:
  Lfu(uint32_t capacity, bool pin) : BlockwisePolicy(capacity, 0, pin) {}
  std::string_view name() const override { return "lfu"; }

  uint64_t MetadataBytes() const override {
    constexpr uint64_t kNodeBytes = sizeof(std::pair<uint32_t, BlockList>) + 4 * sizeof(void*);
    return BlockwisePolicy::MetadataBytes() + uses_.capacity() * sizeof(uint32_t) +
           lists_.size() * kNodeBytes;
  }

 protected:
  void Hit(BlockId block) override {
    Unlist(block);
    List(block, uses_[block] + 1);
  }

  bool Miss(BlockId block, bool) override {
    if (Full() && !DropOne()) return false;
    if (block >= uses_.size()) uses_.resize(size_t{block} + 1);
    List(block, 1);
    return true;
  }

  bool DropOne() override {
    for (const auto& [uses, list] : lists_) {
      const BlockId victim = FirstFree(list);
      if (victim == kNoBlock) continue;
      Unlist(victim);
      Evict(victim, "lfu");
      Forget(victim);
      return true;
    }
    return false;
  }

 private:
  void List(BlockId block, uint32_t uses) {
    uses_[block] = uses;
    links().PushBack(lists_[uses], block);
  }

  void Unlist(BlockId block) {
    const auto list = lists_.find(uses_[block]);
    links().Remove(list->second, block);
    if (list->second.size == 0) lists_.erase(list);
  }

  std::vector<uint32_t> uses_;           // by block
  std::map<uint32_t, BlockList> lists_;  // by number of uses; as many as there are numbers
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLfu(uint32_t capacity, bool pin) {
  return std::make_unique<Lfu>(capacity, pin);
}

}  // namespace kvasir::eviction
