#include "allocator/tier/rendezvous_tier.h"

#include <utility>

#include <absl/container/flat_hash_set.h>

#include "allocator/tier/tier_counters.h"
#include "base/check.h"
#include "base/error.h"

#include <xxhash.h>

namespace kvasir {
namespace {

const TierKey& KeyOf(const TierKey& key) { return key; }
const TierKey& KeyOf(const WriteItem& item) { return item.key; }
const TierKey& KeyOf(const ReadItem& item) { return item.key; }

std::optional<uint64_t> Sum(const std::optional<uint64_t>& a, const std::optional<uint64_t>& b) {
  if (!a || !b) return std::nullopt;
  return *a + *b;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RendezvousTier>> RendezvousTier::Create(
    std::vector<NamedTier> tiers) {
  if (tiers.empty() || tiers.size() > kTiersMax) {
    return InvalidArgument("tiers out of bounds: tiers={} min=1 max={}", tiers.size(), kTiersMax);
  }
  absl::flat_hash_set<std::string> names;
  std::vector<Member> members;
  for (NamedTier& tier : tiers) {
    if (!names.insert(tier.name).second) {
      return InvalidArgument("a tier comes twice: name={}", tier.name);
    }
    members.push_back({XXH3_64bits(tier.name.data(), tier.name.size()), std::move(tier.tier)});
  }
  return std::unique_ptr<RendezvousTier>(new RendezvousTier(std::move(members)));
}

size_t RendezvousTier::TierOf(const TierKey& key) const {
  size_t best = 0;
  uint64_t best_score = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    const uint64_t score =
        XXH3_64bits_withSeed(key.bytes.data(), key.bytes.size(), members_[i].seed);
    if (i == 0 || score > best_score) {
      best = i;
      best_score = score;
    }
  }
  return best;
}

template <typename Item>
std::vector<std::vector<size_t>> RendezvousTier::Shares(std::span<const Item> items) const {
  std::vector<std::vector<size_t>> shares(members_.size());
  for (size_t i = 0; i < items.size(); ++i) shares[TierOf(KeyOf(items[i]))].push_back(i);
  return shares;
}

void RendezvousTier::Write(std::span<const WriteItem> items, std::span<absl::Status> results,
                           const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const auto shares = Shares(items);
  for (size_t tier = 0; tier < shares.size(); ++tier) {
    if (shares[tier].empty()) continue;
    std::vector<WriteItem> share;
    for (const size_t i : shares[tier]) share.push_back(items[i]);
    std::vector<absl::Status> share_results(share.size());
    members_[tier].tier->Write(share, share_results, cancel);
    for (size_t i = 0; i < share.size(); ++i) {
      results[shares[tier][i]] = std::move(share_results[i]);
    }
  }
}

void RendezvousTier::Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
                          const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const auto shares = Shares(items);
  for (size_t tier = 0; tier < shares.size(); ++tier) {
    if (shares[tier].empty()) continue;
    std::vector<ReadItem> share;
    for (const size_t i : shares[tier]) share.push_back(items[i]);
    std::vector<ReadOutcome> share_results(share.size());
    members_[tier].tier->Read(share, share_results, cancel);
    for (size_t i = 0; i < share.size(); ++i) results[shares[tier][i]] = share_results[i];
  }
}

absl::Status RendezvousTier::Erase(std::span<const TierKey> keys) {
  absl::Status status;
  const auto shares = Shares(keys);
  for (size_t tier = 0; tier < shares.size(); ++tier) {
    if (shares[tier].empty()) continue;
    std::vector<TierKey> share;
    for (const size_t i : shares[tier]) share.push_back(keys[i]);
    status.Update(members_[tier].tier->Erase(share));
  }
  return status;
}

absl::Status RendezvousTier::ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) {
  absl::Status status;
  for (const Member& member : members_) status.Update(member.tier->ForEach(visit));
  return status;
}

absl::Status RendezvousTier::Flush() {
  absl::Status status;
  for (const Member& member : members_) status.Update(member.tier->Flush());
  return status;
}

TierStats RendezvousTier::Stats() const {
  TierStats sum = members_[0].tier->Stats();
  for (size_t i = 1; i < members_.size(); ++i) {
    const TierStats stats = members_[i].tier->Stats();
    sum.capacity_bytes = Sum(sum.capacity_bytes, stats.capacity_bytes);
    sum.held_bytes = Sum(sum.held_bytes, stats.held_bytes);
    sum.blocks = Sum(sum.blocks, stats.blocks);
    AddCounts(stats, &sum);
  }
  return sum;
}

}  // namespace kvasir
