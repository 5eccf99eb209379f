#include <algorithm>

#include "eviction/blockwise_policy.h"
#include "eviction/fixed_policies.h"

namespace kvasir::eviction {
namespace {

constexpr uint8_t kUsesMax = 3;  // two bits
constexpr uint8_t kUsesToMain =
    2;  // a block of the small queue that was used again this often stays

class S3Fifo final : public BlockwisePolicy {
 public:
  S3Fifo(uint32_t capacity, bool pin)
      : BlockwisePolicy(capacity, capacity - SmallOf(capacity), pin),
        small_max_(SmallOf(capacity)),
        ghosts_max_(capacity - small_max_) {}
  std::string_view name() const override { return "s3-fifo"; }

  uint64_t MetadataBytes() const override {
    return BlockwisePolicy::MetadataBytes() + states_.capacity() * sizeof(State);
  }

 protected:
  void Hit(BlockId block) override {
    states_[block].uses = std::min<uint8_t>(kUsesMax, states_[block].uses + 1);
  }

  bool Miss(BlockId block, bool ghost) override {
    if (block >= states_.size()) states_.resize(size_t{block} + 1);
    if (ghost) links().Remove(ghosts_, block);
    if (Full() && !DropOne()) {
      if (ghost) links().PushBack(ghosts_, block);
      return false;
    }
    states_[block] = {.uses = 0, .main = ghost};
    links().PushBack(ghost ? main_ : small_, block);
    return true;
  }

  bool DropOne() override {
    if (small_.size >= small_max_ || main_.size == 0) return DropOfSmall() || DropOfMain();
    return DropOfMain() || DropOfSmall();
  }

 private:
  struct State {
    uint8_t uses = 0;
    bool main = false;
  };

  static uint32_t SmallOf(uint32_t capacity) { return std::max(1U, capacity / 10); }

  bool DropOfSmall() {
    for (;;) {
      const BlockId block = FirstFree(small_);
      if (block == kNoBlock) return false;
      links().Remove(small_, block);
      if (states_[block].uses >= kUsesToMain) {
        states_[block] = {.uses = 0, .main = true};
        links().PushBack(main_, block);
        continue;
      }
      Evict(block, "small");
      links().PushBack(ghosts_, block);
      if (ghosts_.size > ghosts_max_) {
        const BlockId oldest = ghosts_.front;
        links().Remove(ghosts_, oldest);
        Forget(oldest);
      }
      return true;
    }
  }

  bool DropOfMain() {
    for (;;) {
      const BlockId block = FirstFree(main_);
      if (block == kNoBlock) return false;
      links().Remove(main_, block);
      if (states_[block].uses > 0) {
        --states_[block].uses;
        links().PushBack(main_, block);
        continue;
      }
      Evict(block, "main");
      Forget(block);
      return true;
    }
  }

  uint32_t small_max_;
  uint32_t ghosts_max_;
  BlockList small_, main_, ghosts_;
  std::vector<State> states_;  // by block
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeS3Fifo(uint32_t capacity, bool pin) {
  return std::make_unique<S3Fifo>(capacity, pin);
}

}  // namespace kvasir::eviction
