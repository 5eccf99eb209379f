#include "daemon/core/prefix_cache.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "eviction/eviction_registry.h"
#include "index/prefix_scope.h"

namespace kvasir::core {
namespace {

bool CanBeCut(const Snapshot& snapshot) { return snapshot.first_rows < snapshot.rows; }

// Chunk borders at which it may be gone on from: [first, last]; none where first > last.
std::pair<uint64_t, uint64_t> BordersOf(const Snapshot& snapshot) {
  const uint64_t last = snapshot.rows / kChunkTokens;
  if (CanBeCut(snapshot)) {
    return {std::max<uint64_t>(DivideUp(snapshot.first_rows, kChunkTokens), 1), last};
  }
  return snapshot.rows % kChunkTokens == 0 ? std::pair{last, last} : std::pair{last + 1, last};
}

bool EndsBehindBorder(const Snapshot& snapshot) {
  return !CanBeCut(snapshot) && snapshot.rows % kChunkTokens != 0;
}

// `border` >= 1.
ChainKey NodeKey(const PrefixChain& chain, const ChainKey& form, uint64_t border) {
  return InForm(chain.keys()[border - 1], form);
}

template <typename List>
void Erase(List& list, uint64_t id) {
  list.erase(std::remove(list.begin(), list.end(), id), list.end());
}

}  // namespace

bool SameRest(const PrefixChain& entry, const PrefixQuery& query) {
  const uint64_t first = entry.keys().size() * kChunkTokens;
  const std::span<const TokenId> rest = entry.rest();
  if (query.tokens.size() < first + rest.size()) return false;
  if (!std::equal(rest.begin(), rest.end(), query.tokens.begin() + static_cast<ptrdiff_t>(first))) {
    return false;
  }
  const auto mine = entry.ExtrasOf(first, first + rest.size());
  const auto theirs = query.chain->ExtrasOf(first, first + rest.size());
  return std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end());
}

PrefixUse& PrefixUse::operator=(PrefixUse&& other) noexcept {
  if (cache_ != nullptr) cache_->End(*this);
  cache_ = std::exchange(other.cache_, nullptr);
  id_ = other.id_;
  blocks_ = std::exchange(other.blocks_, 0);
  tokens_ = other.tokens_;
  return *this;
}

PrefixUse::~PrefixUse() {
  if (cache_ != nullptr) cache_->End(*this);
}

PrefixPin& PrefixPin::operator=(PrefixPin&& other) noexcept {
  if (cache_ != nullptr) cache_->policy_->Unpin(pinned_);
  cache_ = std::exchange(other.cache_, nullptr);
  pinned_ = std::move(other.pinned_);
  return *this;
}

PrefixPin::~PrefixPin() {
  if (cache_ != nullptr) cache_->policy_->Unpin(pinned_);
}

PrefixCache::PrefixCache(Options options, PrefixEvents& events, const Instant& now,
                         std::string tenant)
    : options_(std::move(options)), events_(&events), now_(&now), tenant_(std::move(tenant)) {
  absl::StatusOr<std::unique_ptr<eviction::EvictionPolicy>> policy =
      eviction::MakeEviction(options_.eviction, options_.blocks_max);
  KVASIR_CHECK(policy.ok(), "{}", MessageOf(policy.status()));
  policy_ = *std::move(policy);
}

PrefixCache::~PrefixCache() = default;

int64_t PrefixCache::NowMicros() const {
  return std::chrono::duration_cast<std::chrono::microseconds>(now_->time_since_epoch()).count();
}

PrefixCache::Hit PrefixCache::Match(const PrefixQuery& query, const ChainKey& form,
                                    const std::function<bool(const Snapshot&)>& fits) const {
  Hit hit;
  if (entries_.empty()) return hit;
  const uint64_t rows_max = std::min<uint64_t>(query.rows_max, query.chain->rows());
  const auto take = [&](uint64_t id, uint64_t rows) {
    const Entry& entry = entries_.at(id);
    if (rows > rows_max || !fits(*entry.snapshot)) return false;
    hit = {entry.snapshot, rows, id};
    return true;
  };
  for (uint64_t border = rows_max / kChunkTokens; border > 0; --border) {
    const auto node = nodes_.find(NodeKey(*query.chain, form, border));
    if (node == nodes_.end()) continue;
    for (const uint64_t id : node->second.behind) {
      const Snapshot& snapshot = *entries_.at(id).snapshot;
      if (snapshot.rows <= hit.rows || !SameRest(*snapshot.chain, query)) continue;
      take(id, snapshot.rows);
    }
    if (hit.snapshot != nullptr) return hit;
    for (const uint64_t id : node->second.whole) {
      if (take(id, border * kChunkTokens)) return hit;
    }
  }
  return hit;
}

PrefixUse PrefixCache::Use(const PrefixChain& chain, const ChainKey& form, const Hit& hit) {
  PrefixUse use;
  const uint64_t blocks = hit.rows / kChunkTokens;
  if (const auto found = entries_.find(hit.entry); found != entries_.end()) {
    Entry& entry = found->second;
    ++entry.hits;
    if (IsFork(hit.rows, entry.snapshot->rows)) {
      entry.forked_rows = std::max(entry.forked_rows, hit.rows);
    }
    if (hit.rows > entry.spared_rows) entry.spared_rows = kNoRow;  // known again, by the below
  }
  std::vector<ChainKey> keys;
  for (uint64_t border = 1; border <= blocks; ++border) {
    keys.push_back(NodeKey(chain, form, border));
  }
  std::vector<eviction::Eviction> evicted;
  const absl::StatusOr<eviction::Admission> admission =
      policy_->Begin({keys, false, static_cast<uint32_t>(hit.rows), NowMicros()}, evicted);
  Apply(evicted);
  if (!admission.ok()) return use;  // a chain longer than policies take: it is not learned from
  use.cache_ = this;
  use.id_ = admission->id;
  use.blocks_ = admission->stored;
  use.tokens_ = hit.rows;
  return use;
}

void PrefixCache::End(PrefixUse& use) {
  (void)policy_->Complete(use.id_, {use.tokens_, NowMicros()});
  use.cache_ = nullptr;
}

PrefixPin PrefixCache::Pin(const Snapshot& snapshot) {
  PrefixPin pin;
  pin.pinned_ = policy_->Pin(KeysInForm(snapshot));
  pin.cache_ = this;
  return pin;
}

std::vector<uint64_t> PrefixCache::WithSameRest(const Node& node, const PrefixChain& chain) const {
  std::vector<uint64_t> same;
  const uint64_t first = chain.rows() - chain.rest().size();
  const auto mine = chain.ExtrasOf(first, chain.rows());
  for (const uint64_t id : node.behind) {
    const PrefixChain& other = *entries_.at(id).snapshot->chain;
    const auto theirs = other.ExtrasOf(first, other.rows());
    if (std::equal(chain.rest().begin(), chain.rest().end(), other.rest().begin(),
                   other.rest().end()) &&
        std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end())) {
      same.push_back(id);
    }
  }
  return same;
}

std::vector<uint64_t> PrefixCache::EntriesAt(const Snapshot& snapshot) const {
  const std::span<const ChainKey> keys = snapshot.chain->keys();
  const auto node = nodes_.find(InForm(keys.back(), snapshot.form));
  if (node == nodes_.end()) return {};
  if (!snapshot.chain->rest().empty()) return WithSameRest(node->second, *snapshot.chain);
  return {node->second.whole.begin(), node->second.whole.end()};
}

std::vector<ChainKey> PrefixCache::AttachableKeys(const Snapshot& snapshot) {
  std::vector<ChainKey> keys = KeysInForm(snapshot);
  const auto [first, last] = BordersOf(snapshot);
  keys.erase(keys.begin(), keys.begin() + static_cast<ptrdiff_t>(std::min(first, last) - 1));
  return keys;
}

std::vector<ChainKey> PrefixCache::KeysInForm(const Snapshot& snapshot) {
  std::vector<ChainKey> keys;
  for (const ChainKey& key : snapshot.chain->keys()) keys.push_back(InForm(key, snapshot.form));
  return keys;
}

absl::StatusOr<bool> PrefixCache::Add(std::shared_ptr<const Snapshot> snapshot, PrefixUse& use) {
  KVASIR_CHECK(snapshot->chain && snapshot->chain->rows() == snapshot->rows,
               "a snapshot without its keys: rows={}", snapshot->rows);
  const std::vector<ChainKey> keys = KeysInForm(*snapshot);
  if (keys.empty()) {
    return FailedPrecondition("a prefix has at least one chunk: rows={} min={}", snapshot->rows,
                              kChunkTokens);
  }
  std::vector<eviction::Eviction> evicted;
  uint64_t stored = 0;
  if (use.cache_ != this) use = {};  // it went on from another tenant's
  if (use.cache_ == nullptr) {
    KVASIR_ASSIGN_OR_RETURN(
        const eviction::Admission admission,
        policy_->Begin({keys, false, static_cast<uint32_t>(snapshot->rows), NowMicros()}, evicted));
    use.cache_ = this;
    use.id_ = admission.id;
    stored = use.blocks_ = admission.stored;
  } else {
    while (use.blocks_ < keys.size()) {
      KVASIR_ASSIGN_OR_RETURN(const bool sealed, policy_->Seal(use.id_, keys[use.blocks_], false,
                                                               NowMicros(), evicted));
      if (!sealed) break;
      ++use.blocks_;
    }
    stored = use.blocks_;
  }
  use.tokens_ = std::max(use.tokens_, snapshot->rows);
  Apply(evicted);
  if (stored < keys.size()) {
    return ResourceExhausted(
        "the prefix has more blocks than can be cached now: blocks={} cached={} blocks_max={}",
        keys.size(), stored, options_.blocks_max);
  }
  if (HasOf(*snapshot)) return false;
  const uint64_t forked_rows = DropSuperfluous(*snapshot);
  while (entries_.size() >= options_.entries_max && MakeRoom()) {
  }
  if (entries_.size() >= options_.entries_max) {
    return ResourceExhausted("the tenant has too many cached prefixes: tenant.prefixes_max={}",
                             options_.entries_max);
  }
  Entry& entry = entries_[next_id_];
  entry = {std::move(snapshot), next_id_, 0, *now_, forked_rows};
  ++next_id_;
  ++changes_;
  Insert(entry);
  const Snapshot& added = *entry.snapshot;
  events_->Stored(ChangeOf(added, entry.id, added.rows, AttachableKeys(added)));
  return true;
}

void PrefixCache::Insert(Entry& entry) {
  const Snapshot& snapshot = *entry.snapshot;
  const auto [first, last] = BordersOf(snapshot);
  for (uint64_t border = first; border <= last; ++border) {
    nodes_[NodeKey(*snapshot.chain, snapshot.form, border)].whole.push_back(entry.id);
  }
  if (EndsBehindBorder(snapshot)) {
    nodes_[NodeKey(*snapshot.chain, snapshot.form, last)].behind.push_back(entry.id);
  }
}

void PrefixCache::Remove(const Entry& entry, uint64_t from_border) {
  const Snapshot& snapshot = *entry.snapshot;
  const auto [first, last] = BordersOf(snapshot);
  for (uint64_t border = std::max<uint64_t>({from_border, std::min(first, last), 1});
       border <= last; ++border) {
    const auto node = nodes_.find(NodeKey(*snapshot.chain, snapshot.form, border));
    if (node == nodes_.end()) continue;
    Erase(node->second.whole, entry.id);
    Erase(node->second.behind, entry.id);
    if (node->second.empty()) nodes_.erase(node);
  }
}

void PrefixCache::Drop(uint64_t id, RemovalCause cause) {
  const auto found = entries_.find(id);
  const Snapshot& snapshot = *found->second.snapshot;
  Remove(found->second, 1);
  events_->Removed(ChangeOf(snapshot, id, 0, AttachableKeys(snapshot)), cause);
  entries_.erase(found);
  ++changes_;
}

// Where every row stays, the longer prefix has the shorter one in it.
uint64_t PrefixCache::DropSuperfluous(const Snapshot& snapshot) {
  uint64_t forked_rows = 0;
  if (!CanBeCut(snapshot)) return forked_rows;
  std::set<uint64_t> within;
  const auto [first, last] = BordersOf(snapshot);
  for (uint64_t border = first; border <= last; ++border) {
    const auto node = nodes_.find(NodeKey(*snapshot.chain, snapshot.form, border));
    if (node == nodes_.end()) continue;
    for (const uint64_t id : node->second.whole) {
      if (entries_.at(id).snapshot->rows / kChunkTokens == border) within.insert(id);
    }
  }
  for (const uint64_t id : within) {
    const Entry& entry = entries_.at(id);
    if (entry.snapshot->first_rows < snapshot.first_rows) continue;
    forked_rows = std::max(forked_rows, entry.forked_rows);
    // One of those who went on from its end has made the snapshot.
    const uint64_t end = RoundDown(entry.snapshot->rows, kChunkTokens);
    if (entry.hits > 1 && IsFork(end, snapshot.rows)) forked_rows = std::max(forked_rows, end);
    Drop(id, RemovalCause::kSuperseded);
  }
  return forked_rows;
}

uint64_t PrefixCache::Apply(std::span<const eviction::Eviction> evicted, const Spares& spares) {
  std::map<uint64_t, uint64_t> rows_left;  // by entry
  for (const eviction::Eviction& eviction : evicted) {
    RememberEvicted(eviction.key);
    const auto node = nodes_.find(eviction.key);
    if (node == nodes_.end()) continue;
    const auto lose = [&](uint64_t id, bool whole) {
      const Snapshot& snapshot = *entries_.at(id).snapshot;
      uint64_t rows = 0;
      if (whole && CanBeCut(snapshot)) {
        const auto keys = snapshot.chain->keys();
        const ChainKey key = InForm(eviction.key, snapshot.form);
        rows = static_cast<uint64_t>(std::find(keys.begin(), keys.end(), key) - keys.begin()) *
               kChunkTokens;
        if (rows < snapshot.first_rows) rows = 0;
      }
      const auto [at, added] = rows_left.emplace(id, rows);
      if (!added) at->second = std::min(at->second, rows);
    };
    for (const uint64_t id : node->second.whole) lose(id, true);
    for (const uint64_t id : node->second.behind) lose(id, false);
  }
  for (const auto& [id, lost] : rows_left) {
    Entry& entry = entries_.at(id);
    const uint64_t rows = std::min(lost, entry.spared_rows);
    if (spares && spares(entry, rows)) {
      entry.spared_rows = rows;
      for (const eviction::Eviction& eviction : evicted) evicted_at_.erase(eviction.key);
    } else {
      CutEntry(id, rows, RemovalCause::kEvicted);
    }
  }
  return rows_left.size();
}

bool PrefixCache::Has(const PrefixChain& chain, const ChainKey& form) const {
  if (chain.keys().empty()) return false;
  const auto node = nodes_.find(InForm(chain.keys().back(), form));
  return node != nodes_.end() && !node->second.whole.empty();
}

bool PrefixCache::HasOf(const Snapshot& snapshot) const {
  return EndsBehindBorder(snapshot) ? FindEnd(*snapshot.chain, snapshot.form) != nullptr
                                    : Has(*snapshot.chain, snapshot.form);
}

std::vector<ChainKey> PrefixCache::Forms() const {
  std::vector<ChainKey> forms;
  for (const auto& [id, entry] : entries_) {
    const ChainKey& form = entry.snapshot->form;
    if (std::find(forms.begin(), forms.end(), form) == forms.end()) forms.push_back(form);
  }
  return forms;
}

void PrefixCache::DropEntry(uint64_t id, RemovalCause cause) {
  if (entries_.contains(id)) Drop(id, cause);
}

void PrefixCache::Rehome(uint64_t id, std::shared_ptr<const Snapshot> snapshot) {
  Entry& entry = entries_.at(id);
  KVASIR_CHECK(snapshot->rows == entry.snapshot->rows, "another prefix: rows={}", snapshot->rows);
  entry.snapshot = std::move(snapshot);
  ++changes_;
}

uint64_t PrefixCache::MetadataBytes() const {
  uint64_t bytes = policy_->MetadataBytes() +
                   nodes_.capacity() * (sizeof(std::pair<ChainKey, Node>) + 1) +
                   evicted_at_.capacity() * (sizeof(std::pair<ChainKey, Instant>) + 1);
  for (const auto& [id, entry] : entries_) {
    bytes += sizeof(Entry) + entry.snapshot->chain->keys().size() * sizeof(ChainKey);
  }
  return bytes;
}

std::optional<Instant> PrefixCache::EvictedAt(const ChainKey& key_in_form) const {
  const auto found = evicted_at_.find(key_in_form);
  if (found == evicted_at_.end()) return std::nullopt;
  return found->second;
}

}  // namespace kvasir::core
