#include "eviction/return_hazard.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/state_codec.h"

namespace kvasir::eviction {
namespace {

constexpr int64_t kTimeMax = int64_t{1} << 60;  // microseconds: sums with ages do not overflow

uint32_t FloorLog2(uint64_t x) { return 63 - static_cast<uint32_t>(std::countl_zero(x | 1)); }

uint32_t BlocksMax(uint32_t capacity, const ReturnHazardOptions& options) {
  const double most = capacity * (1 + options.ghost_factor) + kChainBlocksMax;
  return static_cast<uint32_t>(std::min<double>(most, (uint32_t{1} << 31) - 1.0));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReturnHazard>> ReturnHazard::Make(
    uint32_t capacity, const ReturnHazardOptions& options) {
  if (capacity < 1 || capacity > kCapacityMax) {
    return InvalidArgument("capacity out of bounds: capacity_blocks={} min=1 max={}", capacity,
                           kCapacityMax);
  }
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  return std::unique_ptr<ReturnHazard>(new ReturnHazard(capacity, options));
}

ReturnHazard::ReturnHazard(uint32_t capacity, const ReturnHazardOptions& options)
    : options_(options),
      capacity_(capacity),
      index_(BlocksMax(capacity, options)),
      lists_(options.old_bonus),
      statistics_(options) {
  lists_.Reindex(statistics_);
}

absl::StatusOr<Admission> ReturnHazard::Begin(const SequenceStart& start,
                                              std::vector<Eviction>& evicted) {
  if (absl::Status status = CheckStart(start); !status.ok()) return status;
  Age(start.now_us);
  FindPath(start.chain);
  const int64_t trunk = TrunkOf();
  Admission admission;
  admission.id = sequences_.Open();
  Sequence& sequence = *sequences_.Find(admission.id);
  Describe(start, trunk, sequence);
  admission.known = static_cast<uint32_t>(path_.size());
  while (admission.prefix_hits < path_.size() && index_[path_[admission.prefix_hits]].resident) {
    ++admission.prefix_hits;
  }
  admission.block_hits = admission.prefix_hits;
  DetachPath();
  // The chain's own blocks have no tail now, so they are not among the victims.
  const uint64_t missing = start.chain.size() - admission.prefix_hits;
  while (resident_ + missing > capacity_ && DropFirst(evicted)) {
  }
  StoreChain(start, trunk, sequence, admission);
  // Deepest first: no ghost is to outlive its parent.
  for (const TailType type : {kPartial, kNew, kReturning, kTrunk}) {
    for (const OwnTail& own : sequence.tails) {
      if (tails_[own.id].type == type) PushOrderBack(own.id);
    }
  }
  DropGhosts();
  return admission;
}

void ReturnHazard::Age(int64_t now_us) {
  now_ = std::max(now_, std::min(now_us, kTimeMax));
  for (TailId id; (id = timers_.FirstDue(tails_, now_)) != kNoTail;) {
    Tail& tail = tails_[id];
    timers_.Remove(tails_, id);
    lists_.Remove(tails_, id);
    const double share = static_cast<double>(tail.known) / tail.size;
    if (tail.type != kTrunk) statistics_.Observe(tail.features, tail.bucket, 0, share);
    ++tail.bucket;
    if (tail.type != kTrunk) statistics_.AddRisk(tail.bucket, share);
    timers_.Insert(tails_, id);
    Relist(id);
  }
}

void ReturnHazard::FindPath(std::span<const ChainKey> chain) {
  path_.clear();
  BlockId parent = kNoBlock;
  for (const ChainKey& key : chain) {
    const BlockId block = index_.Find(key);
    if (block == kNoBlock || index_[block].parent != parent) return;
    path_.push_back(block);
    parent = block;
  }
}

int64_t ReturnHazard::TrunkOf() const {
  auto at = static_cast<int64_t>(path_.size()) - 1;
  while (at >= 0 && index_[path_[static_cast<size_t>(at)]].kids < options_.trunk_kids) --at;
  return at;
}

void ReturnHazard::Describe(const SequenceStart& start, int64_t trunk, Sequence& sequence) {
  sequence.tails.clear();
  sequence.last = kNoBlock;
  sequence.broken = false;
  sequence.partial = start.last_partial;
  sequence.first_turn = static_cast<int64_t>(path_.size()) - 1 <= trunk;
  sequence.generation = 0;
  sequence.gap = sequence.previous_gap = 0;
  sequence.served_at = now_;
  int64_t typed = start.tokens;
  if (!path_.empty()) {
    const BlockRecord& block = index_[path_.back()];
    const Tail& before = tails_[block.tail];
    sequence.generation = std::min<uint16_t>(kGenerationMax, block.generation + 1);
    if (!sequence.first_turn) {
      const double seconds = static_cast<double>(now_ - before.served_at) * 1e-6;
      sequence.gap = static_cast<uint8_t>(1 + std::min(14.0, std::log2(1 + seconds)));
      sequence.previous_gap = before.gap;
      typed -= before.tokens;
    }
  }
  const double fresh = static_cast<double>(start.chain.size() - path_.size());
  const auto units = static_cast<uint64_t>(std::ceil(fresh * options_.block_tokens / 512));
  sequence.fresh_level = static_cast<uint8_t>(std::min(8U, FloorLog2(units)));
  sequence.typed_level =
      typed < -2000  ? 0
      : typed < -100 ? 1
      : typed < 0
          ? 2
          : static_cast<uint8_t>(3 + std::min(16U, FloorLog2(static_cast<uint64_t>(typed) + 1)));
}

void ReturnHazard::DetachPath() {
  for (size_t i = 0; i < path_.size();) {
    const TailId id = index_[path_[i]].tail;
    Tail& tail = tails_[id];
    uint32_t count = 0, resident = 0;
    for (; i < path_.size() && index_[path_[i]].tail == id; ++i) {
      ++count;
      resident += index_[path_[i]].resident;
      index_[path_[i]].tail = kNoTail;
    }
    if (!tail.running && tail.type != kTrunk) {
      const double share = static_cast<double>(count) / tail.size;
      statistics_.Observe(tail.features, tail.bucket, share, share);
    }
    tail.known -= count;
    tail.resident -= resident;
    if (tail.known == 0) {
      FreeTail(id);
    } else {
      Relist(id);
    }
  }
}

void ReturnHazard::StoreChain(const SequenceStart& start, int64_t trunk, Sequence& sequence,
                              Admission& admission) {
  BlockId parent = kNoBlock;
  for (size_t i = 0; i < start.chain.size(); ++i) {
    const bool known = i < path_.size();
    if (resident_ >= capacity_ && !(known && index_[path_[i]].resident)) {
      KeepRestAsGhosts(i, trunk, sequence);
      break;
    }
    const BlockId block = known ? path_[i] : index_.Insert(start.chain[i], parent);
    if (block == kNoBlock) {  // known under another parent, or twice in the chain
      sequence.broken = true;
      break;
    }
    if (!known) {
      index_[block].generation = sequence.generation & kGenerationMax;
      if (parent != kNoBlock) ++index_[parent].kids;
    }
    if (!index_[block].resident) BecomeResident(block);
    if (index_[block].refs < kRefsMax) ++index_[block].refs;
    const bool partial = start.last_partial && i + 1 == start.chain.size();
    const TailType type = static_cast<int64_t>(i) <= trunk ? kTrunk
                          : known                          ? kReturning
                          : partial                        ? kPartial
                                                           : kNew;
    Append(sequence, type, block);
    parent = block;
    ++admission.stored;
  }
  PinLast(sequence, parent);
}

void ReturnHazard::KeepRestAsGhosts(size_t from, int64_t trunk, Sequence& sequence) {
  sequence.broken = true;
  for (size_t i = from; i < path_.size(); ++i) {
    if (sequence.tails.empty()) {
      MakeTail(sequence, static_cast<int64_t>(i) <= trunk ? kTrunk : kReturning, path_[i]);
    }
    Append(sequence, static_cast<TailType>(tails_[sequence.tails.back().id].type), path_[i]);
  }
}

bool ReturnHazard::MakeRoom(std::vector<Eviction>& evicted) {
  return resident_ < capacity_ || DropFirst(evicted);
}

bool ReturnHazard::DropFirst(std::vector<Eviction>& evicted) {
  const TailId id = lists_.First();
  if (id == kNoTail) return false;
  Tail& tail = tails_[id];
  const BlockId block = tail.tip;
  const BlockId parent = index_[block].parent;
  EvictionReason reason;
  reason.list = tail.list == TailList::kDead  ? "dead"
                : tail.list == TailList::kOld ? "old"
                                              : "cell";
  reason.level = tail.level;
  reason.bucket = tail.bucket;
  reason.index = static_cast<float>(lists_.index().Index(CellOf(tail.level, tail.bucket)));
  reason.features = tail.features.values;
  reason.scored = true;
  evicted.push_back({index_[block].key, reason});

  index_[block].resident = 0;
  --resident_;
  --tail.resident;
  if (parent != kNoBlock) --index_[parent].resident_kids;
  if (tail.resident > 0) tail.tip = parent;
  if (tail.forgotten) {
    index_.Erase(block);
    tail.deep = parent;
    --tail.known;
  }
  if (tail.known == 0) {
    FreeTail(id);
  } else {
    Relist(id);
  }
  RelistTailOf(parent);
  return true;
}

void ReturnHazard::BecomeResident(BlockId block) {
  index_[block].resident = 1;
  ++resident_;
  if (const BlockId parent = index_[block].parent; parent != kNoBlock) {
    ++index_[parent].resident_kids;
  }
}

void ReturnHazard::PinLast(Sequence& sequence, BlockId block) {
  if (block != kNoBlock) ++index_[block].pins;
  if (sequence.last != kNoBlock) --index_[sequence.last].pins;
  sequence.last = block;
}

absl::Status ReturnHazard::Complete(SequenceId id, const SequenceEnd& end) {
  Sequence* sequence = sequences_.Find(id);
  if (sequence == nullptr) return NotFound("unknown sequence: slot={}", id.slot);
  const int64_t idle_from = std::clamp(end.idle_from_us, now_, kTimeMax);
  const BlockId last = sequence->last;
  if (last != kNoBlock) --index_[last].pins;
  // Others may have taken all blocks of a tail over: it is gone then.
  std::erase_if(sequence->tails,
                [this](const OwnTail& own) { return tails_[own.id].serial != own.serial; });
  for (const OwnTail& own : sequence->tails) {
    Tail& tail = tails_[own.id];
    tail.running = false;
    tail.idle_from = idle_from;
    tail.tokens = static_cast<uint32_t>(std::min<uint64_t>(end.tokens, UINT32_MAX));
    tail.level = tail.type == kTrunk ? kTrunkLevel : statistics_.LevelOf(tail.features);
    if (tail.type != kTrunk) {
      statistics_.AddRisk(0, static_cast<double>(tail.known) / tail.size);
    }
    timers_.Insert(tails_, own.id);
    Relist(own.id);
  }
  RelistTailOf(last);
  sequences_.Close(id);
  if (++completed_ % static_cast<uint64_t>(options_.relearn_every) == 0) {
    lists_.SetOldBucket(tails_, statistics_.OldBucket());
    statistics_.Decay();
    lists_.Reindex(statistics_);
  }
  return absl::OkStatus();
}

std::vector<ChainKey> ReturnHazard::Pin(std::span<const ChainKey> chain) {
  const uint32_t resident = Lookup(chain).resident;
  if (resident == 0) return {};
  const ChainKey& deepest = chain[resident - 1];  // all others stand above it
  const BlockId block = index_.Find(deepest);
  ++index_[block].pins;
  RelistTailOf(block);
  return {deepest};
}

void ReturnHazard::Unpin(std::span<const ChainKey> pinned) {
  for (const ChainKey& key : pinned) {
    const BlockId block = index_.Find(key);
    --index_[block].pins;
    RelistTailOf(block);
  }
}

std::optional<Eviction> ReturnHazard::EvictOne(int64_t now_us) {
  Age(now_us);
  std::vector<Eviction> one;
  if (!DropFirst(one)) return std::nullopt;
  DropGhosts();
  return one.front();
}

std::optional<std::string> ReturnHazard::SaveBody() const {
  std::string body;
  AppendNumber(body, completed_ % static_cast<uint64_t>(options_.relearn_every));
  return body + statistics_.Save();
}

absl::Status ReturnHazard::RestoreBody(std::string_view body) {
  if (body.size() < 8) return DataLoss("learned state is cut: bytes={} min=8", body.size());
  // Another relearn_every may have been set since.
  const uint64_t completed = TakeNumber(body) % static_cast<uint64_t>(options_.relearn_every);
  if (absl::Status status = statistics_.Restore(body); !status.ok()) return status;
  completed_ = completed;
  lists_.SetOldBucket(tails_, statistics_.OldBucket());
  lists_.Reindex(statistics_);
  return absl::OkStatus();
}

uint64_t ReturnHazard::MetadataBytes() const {
  return sizeof(*this) + index_.MetadataBytes() + tails_.MetadataBytes() +
         statistics_.MetadataBytes() + sequences_.MetadataBytes() +
         path_.capacity() * sizeof(BlockId);
}

}  // namespace kvasir::eviction
