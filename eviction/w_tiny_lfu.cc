#include <algorithm>

#include "eviction/blockwise_policy.h"
#include "eviction/fixed_policies.h"
#include "eviction/frequency_sketch.h"

namespace kvasir::eviction {
namespace {

class WTinyLfu final : public BlockwisePolicy {
 public:
  WTinyLfu(uint32_t capacity, bool pin)
      : BlockwisePolicy(capacity, 0, pin),
        window_max_(std::max(1U, capacity / 100)),
        protected_max_(static_cast<uint32_t>(uint64_t{capacity - window_max_} * 8 / 10)),
        sketch_(capacity) {}
  std::string_view name() const override { return "w-tinylfu"; }

  uint64_t MetadataBytes() const override {
    return BlockwisePolicy::MetadataBytes() + in_.capacity() * sizeof(Where) +
           sketch_.MetadataBytes();
  }

 protected:
  void Hit(BlockId block) override {
    sketch_.Add(blocks()[block].key);
    Move(block, in_[block] == kWindow ? kWindow : kProtected);
    if (lists_[kProtected].size > protected_max_) Move(lists_[kProtected].front, kProbation);
  }

  bool Miss(BlockId block, bool) override {
    if (block >= in_.size()) in_.resize(size_t{block} + 1);
    sketch_.Add(blocks()[block].key);
    const BlockId candidate =
        lists_[kWindow].size >= window_max_ ? FirstFree(lists_[kWindow]) : kNoBlock;
    if (Full()) {
      const BlockId victim = MainVictim();
      if (candidate == kNoBlock && victim == kNoBlock) return false;
      if (candidate == kNoBlock) {
        Drop(victim);
      } else if (victim == kNoBlock || UsesOf(candidate) <= UsesOf(victim)) {
        Drop(candidate);
      } else {
        Drop(victim);
        Move(candidate, kProbation);
      }
    } else if (candidate != kNoBlock) {
      Move(candidate, kProbation);
    }
    in_[block] = kWindow;
    links().PushBack(lists_[kWindow], block);
    return true;
  }

  bool DropOne() override {
    BlockId victim = MainVictim();
    if (victim == kNoBlock) victim = FirstFree(lists_[kWindow]);
    if (victim == kNoBlock) return false;
    Drop(victim);
    return true;
  }

 private:
  enum Where : uint8_t { kWindow, kProbation, kProtected };
  static constexpr const char* kNames[] = {"window", "probation", "protected"};

  uint32_t UsesOf(BlockId block) const { return sketch_.Estimate(blocks()[block].key); }

  BlockId MainVictim() const {
    const BlockId victim = FirstFree(lists_[kProbation]);
    return victim != kNoBlock ? victim : FirstFree(lists_[kProtected]);
  }

  void Drop(BlockId block) {
    links().Remove(lists_[in_[block]], block);
    Evict(block, kNames[in_[block]]);
    Forget(block);
  }

  void Move(BlockId block, Where to) {
    links().Remove(lists_[in_[block]], block);
    in_[block] = to;
    links().PushBack(lists_[to], block);
  }

  uint32_t window_max_;
  uint32_t protected_max_;
  BlockList lists_[3];
  std::vector<Where> in_;  // by block
  FrequencySketch sketch_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeWTinyLfu(uint32_t capacity, bool pin) {
  return std::make_unique<WTinyLfu>(capacity, pin);
}

}  // namespace kvasir::eviction
