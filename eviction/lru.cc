#include "eviction/blockwise_policy.h"
#include "eviction/fixed_policies.h"

namespace kvasir::eviction {
namespace {

class Lru final : public BlockwisePolicy {
 public:
  Lru(uint32_t capacity, bool pin) : BlockwisePolicy(capacity, 0, pin) {}
  std::string_view name() const override { return "lru"; }

 protected:
  void Hit(BlockId block) override {
    links().Remove(list_, block);
    links().PushBack(list_, block);
  }

  bool Miss(BlockId block, bool) override {
    if (Full() && !DropOne()) return false;
    links().PushBack(list_, block);
    return true;
  }

  bool DropOne() override {
    const BlockId victim = FirstFree(list_);
    if (victim == kNoBlock) return false;
    links().Remove(list_, victim);
    Evict(victim, "lru");
    Forget(victim);
    return true;
  }

 private:
  BlockList list_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLru(uint32_t capacity, bool pin) {
  return std::make_unique<Lru>(capacity, pin);
}

}  // namespace kvasir::eviction
