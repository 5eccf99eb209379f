#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/state_codec.h"
#include "eviction/blockwise_policy.h"
#include "eviction/fixed_policies.h"

namespace kvasir::eviction {
namespace {

// Names and cases are the paper's (figure 4). T: resident, B: ghosts; 1: used once, 2: more often.
class Arc final : public BlockwisePolicy {
 public:
  Arc(uint32_t capacity, bool pin) : BlockwisePolicy(capacity, capacity, pin) {}
  std::string_view name() const override { return "arc"; }

  uint64_t MetadataBytes() const override {
    return BlockwisePolicy::MetadataBytes() + in_.capacity() * sizeof(Where);
  }

 protected:
  void Hit(BlockId block) override { Move(block, kT2); }  // case I

  bool Miss(BlockId block, bool ghost) override {
    if (!ghost) return MissUnknown(block);
    const bool in_b2 = in_[block] == kB2;
    const double b1 = lists_[kB1].size, b2 = lists_[kB2].size;
    if (in_b2) {
      p_ = std::max(0.0, p_ - std::max(b1 / b2, 1.0));  // case III
    } else {
      p_ = std::min<double>(capacity(), p_ + std::max(b2 / b1, 1.0));  // case II
    }
    if (Full() && !Replace(in_b2)) return false;
    Move(block, kT2);
    return true;
  }

  bool DropOne() override { return Replace(false); }

 private:
  // The share of the room that T1 should have: of one capacity as of any.
  std::optional<std::string> SaveBody() const override {
    std::string body;
    AppendNumber(body, std::bit_cast<uint64_t>(p_ / capacity()));
    return body;
  }
  absl::Status RestoreBody(std::string_view body) override {
    if (body.size() != 8) {
      return DataLoss("learned state has another size: bytes={} expected=8", body.size());
    }
    const auto share = std::bit_cast<double>(TakeNumber(body));
    if (!(share >= 0 && share <= 1)) {  // NaN is refused too
      return DataLoss("learned state is out of bounds: share={} min=0 max=1", share);
    }
    p_ = share * capacity();
    return absl::OkStatus();
  }

  enum Where : uint8_t { kT1, kT2, kB1, kB2 };

  bool MissUnknown(BlockId block) {  // case IV
    if (block >= in_.size()) in_.resize(size_t{block} + 1);
    const uint32_t l1 = lists_[kT1].size + lists_[kB1].size;
    const uint32_t l2 = lists_[kT2].size + lists_[kB2].size;
    if (l1 >= capacity() && lists_[kB1].size == 0) {
      const BlockId victim = FirstFree(lists_[kT1]);
      if (victim == kNoBlock) return false;
      links().Remove(lists_[kT1], victim);
      Evict(victim, "t1");
      BlockwisePolicy::Forget(victim);
    } else if (l1 >= capacity()) {
      ForgetFirst(kB1);
      if (Full() && !Replace(false)) return false;
    } else {
      if (l1 + l2 >= 2 * capacity()) ForgetFirst(kB2);
      if (Full() && !Replace(false)) return false;
    }
    in_[block] = kT1;
    links().PushBack(lists_[kT1], block);
    return true;
  }

  bool Replace(bool in_b2) {
    const double t1 = lists_[kT1].size;
    const bool first =
        t1 >= 1 && ((in_b2 && t1 == static_cast<double>(static_cast<uint32_t>(p_))) || t1 > p_);
    Where from = first ? kT1 : kT2;
    BlockId victim = FirstFree(lists_[from]);
    if (victim == kNoBlock) {  // all pinned there, or empty
      from = first ? kT2 : kT1;
      victim = FirstFree(lists_[from]);
      if (victim == kNoBlock) return false;
    }
    Move(victim, from == kT1 ? kB1 : kB2);
    Evict(victim, from == kT1 ? "t1" : "t2");
    return true;
  }

  void Move(BlockId block, Where to) {
    links().Remove(lists_[in_[block]], block);
    in_[block] = to;
    links().PushBack(lists_[to], block);
  }

  void ForgetFirst(Where where) {
    const BlockId ghost = lists_[where].front;
    if (ghost == kNoBlock) return;
    links().Remove(lists_[where], ghost);
    BlockwisePolicy::Forget(ghost);
  }

  BlockList lists_[4];
  std::vector<Where> in_;  // by block
  double p_ = 0;           // room that T1 should have
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeArc(uint32_t capacity, bool pin) {
  return std::make_unique<Arc>(capacity, pin);
}

}  // namespace kvasir::eviction
