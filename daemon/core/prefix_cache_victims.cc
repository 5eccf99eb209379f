// PrefixCache: entries that lose their ends, or are spared.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "daemon/core/prefix_cache.h"
#include "index/prefix_scope.h"

namespace kvasir::core {
namespace {

constexpr size_t kEvictedRemembered = 1 << 14;
constexpr int kVictimsAtOnce = 16;

}  // namespace

bool PrefixCache::MakeRoom() {
  for (;;) {
    std::vector<eviction::Eviction> evicted;
    for (int i = 0; i < kVictimsAtOnce; ++i) {
      std::optional<eviction::Eviction> one = policy_->EvictOne(NowMicros());
      if (!one) break;
      evicted.push_back(*one);
    }
    if (evicted.empty()) return false;
    if (Apply(evicted) > 0) return true;  // else they were blocks that no entry ends in any more
  }
}

uint64_t PrefixCache::Clear() {
  const uint64_t before = entries_.size();
  while (MakeRoom()) {
  }
  return before - entries_.size();
}

bool PrefixCache::GiveUpNext(const Spares& spares) {
  while (const std::optional<eviction::Eviction> one = policy_->EvictOne(NowMicros())) {
    if (Apply({&*one, 1}, spares) > 0) return true;
  }
  return false;
}

void PrefixCache::CutEntry(uint64_t id, uint64_t rows, RemovalCause cause) {
  Entry& entry = entries_.at(id);
  const uint64_t border = rows / kChunkTokens;
  if (entry.spared_rows != kNoRow) {
    RememberEvicted(InForm(entry.snapshot->chain->keys()[border], entry.snapshot->form));
  }
  if (rows == 0) return Drop(id, cause);
  Remove(entry, border + 1);
  std::vector<ChainKey> keys = KeysInForm(*entry.snapshot);
  keys.erase(keys.begin(), keys.begin() + static_cast<ptrdiff_t>(border));
  entry.snapshot = entry.snapshot->Cut(rows);
  ++changes_;
  if (!IsFork(entry.forked_rows, rows)) entry.forked_rows = 0;
  events_->Removed(ChangeOf(*entry.snapshot, id, rows, std::move(keys)), cause);
  if (rows > std::exchange(entry.spared_rows, kNoRow)) TellPolicyOf(*entry.snapshot);
}

void PrefixCache::TellPolicyOf(const Snapshot& snapshot) {
  std::vector<eviction::Eviction> evicted;
  const std::vector<ChainKey> keys = KeysInForm(snapshot);
  const absl::StatusOr<eviction::Admission> admission =
      policy_->Begin({keys, false, static_cast<uint32_t>(snapshot.rows), NowMicros()}, evicted);
  if (admission.ok()) (void)policy_->Complete(admission->id, {snapshot.rows, NowMicros()});
  Apply(evicted);
}

PrefixChange PrefixCache::ChangeOf(const Snapshot& snapshot, uint64_t id, uint64_t rows,
                                   std::vector<ChainKey> keys) const {
  return {tenant_,        snapshot.retention,     rows, std::move(keys), id,
          options_.place, snapshot.condensed_from};
}

const PrefixCache::Entry* PrefixCache::FindEnd(const PrefixChain& chain,
                                               const ChainKey& form) const {
  if (chain.keys().empty()) return nullptr;
  const auto node = nodes_.find(InForm(chain.keys().back(), form));
  if (node == nodes_.end()) return nullptr;
  if (chain.rest().empty()) {
    const auto& whole = node->second.whole;
    return whole.empty() ? nullptr : &entries_.at(whole.front());
  }
  const uint64_t last = chain.keys().size() * kChunkTokens;
  for (const uint64_t id : node->second.behind) {
    const Entry& entry = entries_.at(id);
    const PrefixChain& other = *entry.snapshot->chain;
    const auto my = chain.ExtrasOf(last, chain.rows()), their = other.ExtrasOf(last, other.rows());
    if (std::equal(chain.rest().begin(), chain.rest().end(), other.rest().begin(),
                   other.rest().end()) &&
        std::equal(my.begin(), my.end(), their.begin(), their.end())) {
      return &entry;
    }
  }
  return nullptr;
}

void PrefixCache::RememberEvicted(const ChainKey& key_in_form) {
  if (evicted_at_.size() >= kEvictedRemembered) evicted_at_.clear();
  evicted_at_[key_in_form] = *now_;
}

}  // namespace kvasir::core
