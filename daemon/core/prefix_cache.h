// PrefixCache: the snapshots of one tenant that are found by the tokens that lead to them.
//
// An entry is a snapshot and the rows at which it may be gone on from: one row, or, where every row
// stays as written, every border between chunks up to its last. What is worth keeping is decided by
// an eviction policy, a chunk at a time; an entry of which the last chunk is a victim is cut, or
// goes where it cannot be cut. Its groups are freed when nobody else names them.
//
// Not thread-safe. Cost: a match is O(chunks of the prompt); an entry takes about 64 bytes a chunk
// beside what the policy takes (eviction_policy.h).
#ifndef KVASIR_DAEMON_CORE_PREFIX_CACHE_H_
#define KVASIR_DAEMON_CORE_PREFIX_CACHE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>
#include <absl/status/status.h>

#include "base/clock.h"
#include "daemon/core/prefix_events.h"
#include "daemon/core/snapshot.h"
#include "eviction/eviction_policy.h"
#include "index/prefix_chain.h"

namespace kvasir::core {

class PrefixCache;

// The tokens of a prompt and their keys.
struct PrefixQuery {
  const PrefixChain* chain = nullptr;
  std::span<const TokenId> tokens;  // chain->rows() of them
  uint64_t rows_max = 0;            // no more are wanted
};

// The tokens of `entry` behind its last chunk are those of the query there, and stand for the same.
bool SameRest(const PrefixChain& entry, const PrefixQuery& query);

// What a sequence uses of a cache: its blocks are no victims while it runs. Ends with it.
class PrefixUse {
 public:
  PrefixUse() = default;
  PrefixUse(PrefixUse&& other) noexcept { *this = std::move(other); }
  PrefixUse& operator=(PrefixUse&& other) noexcept;
  ~PrefixUse();

  // Tokens of the sequence so far, which the policy learns from at the end.
  void set_tokens(uint64_t tokens) { tokens_ = tokens; }
  uint64_t rows() const { return blocks_ * kChunkTokens; }  // of its blocks

 private:
  friend class PrefixCache;
  PrefixCache* cache_ = nullptr;
  eviction::SequenceId id_;
  uint64_t blocks_ = 0;  // that the policy knows to be the sequence's
  uint64_t tokens_ = 0;
};

// What a lease holds of a cache: its blocks are no victims. Unlike a PrefixUse it is no use of
// them: the policy learns nothing from it. Ends with it.
class PrefixPin {
 public:
  PrefixPin() = default;
  PrefixPin(PrefixPin&& other) noexcept { *this = std::move(other); }
  PrefixPin& operator=(PrefixPin&& other) noexcept;
  ~PrefixPin();

 private:
  friend class PrefixCache;
  PrefixCache* cache_ = nullptr;
  std::vector<ChainKey> pinned_;  // of its policy
};

class PrefixCache {
 public:
  struct Options {
    std::string eviction;      // spec of eviction_registry.h, checked
    uint32_t blocks_max = 1;   // chunks in all
    uint32_t entries_max = 1;  // more push the least valuable out
    std::string place;         // where its rows lie: "memory", a device's pool or a tier
  };
  struct Hit {
    std::shared_ptr<const Snapshot> snapshot;  // null: none
    uint64_t rows = 0;
    uint64_t entry = 0;
  };
  struct Entry {
    std::shared_ptr<const Snapshot> snapshot;  // shared with those who go on from it
    uint64_t id = 0;
    uint64_t hits = 0;
    Instant made_at;
    // Largest row, well before its end, at which somebody has gone on from it: others may begin so.
    uint64_t forked_rows = 0;
    // It was spared: the policy does not know of the chunk behind these rows. kNoRow: it was not.
    uint64_t spared_rows = kNoRow;
  };
  // Of an entry that loses its end so that `rows_left` rows are left.
  using Spares = std::function<bool(const Entry& entry, uint64_t rows_left)>;

  // `now`: the owner's, read at each call. It and `events` must outlive the cache.
  PrefixCache(Options options, PrefixEvents& events, const Instant& now, std::string tenant);
  // From the next one on that is added.
  void set_entries_max(uint32_t entries) { options_.entries_max = entries; }
  PrefixCache(PrefixCache&&) = default;  // before the first use
  ~PrefixCache();

  // The longest prefix that there is in `form`, of a snapshot that passes `fits`. No side effect.
  Hit Match(const PrefixQuery& query, const ChainKey& form,
            const std::function<bool(const Snapshot&)>& fits) const;

  // The sequence that goes on from `hit` uses its blocks.
  PrefixUse Use(const PrefixChain& chain, const ChainKey& form, const Hit& hit);

  // Holds the blocks of a snapshot of this cache, or of what was cut from one.
  PrefixPin Pin(const Snapshot& snapshot);
  // Entries that can be gone on from at the last row of the snapshot, which has a chain.
  std::vector<uint64_t> EntriesAt(const Snapshot& snapshot) const;

  // Adds a snapshot with a chain, which `use` is of; entries that it makes superfluous go. False
  // where there is one already. Errors: kFailedPrecondition (under a chunk of rows),
  // kResourceExhausted (the policy has no room: everything is in use).
  absl::StatusOr<bool> Add(std::shared_ptr<const Snapshot> snapshot, PrefixUse& use);

  // There is an entry that has all of these whole chunks, or more of them.
  bool Has(const PrefixChain& chain, const ChainKey& form) const;
  // There is what this one can be gone on from at.
  bool HasOf(const Snapshot& snapshot) const;
  // An entry that is found at the chain's end, to the token; null: there is none.
  const Entry* FindEnd(const PrefixChain& chain, const ChainKey& form) const;
  // Of its entries, each once.
  std::vector<ChainKey> Forms() const;
  // Gives up one entry, where it is there.
  void DropEntry(uint64_t id, RemovalCause cause = RemovalCause::kEvicted);
  // The same rows in other groups. REQUIRES: the entry is there.
  void Rehome(uint64_t id, std::shared_ptr<const Snapshot> snapshot);
  // Grows whenever what an entry names changes.
  uint64_t changes() const { return changes_; }

  // Gives up what is worth least; false where nothing can be.
  bool MakeRoom();
  // Likewise as little as one chunk. The entries of which it is the end and that are spared stay as
  // they are; their caller answers for them, since the policy does not know of their end any more.
  bool GiveUpNext(const Spares& spares);
  // Leaves an entry its first `rows` rows, or nothing of it. REQUIRES: it is there, and may be gone
  // on from at that border, or rows is 0.
  void CutEntry(uint64_t id, uint64_t rows, RemovalCause cause);
  // Gives up everything that nobody uses; what it was, in entries.
  uint64_t Clear();

  const std::map<uint64_t, Entry>& entries() const { return entries_; }
  uint64_t blocks() const { return policy_->resident(); }
  uint64_t MetadataBytes() const;
  const eviction::EvictionPolicy& policy() const { return *policy_; }
  // What the policy had learned before. Errors: eviction_policy.h's.
  absl::Status RestoreLearned(std::string_view bytes) { return policy_->RestoreLearned(bytes); }
  // When the block was given up, as far as that is remembered; nothing otherwise.
  std::optional<Instant> EvictedAt(const ChainKey& key_in_form) const;

 private:
  friend class PrefixPin;
  friend class PrefixUse;
  // Entries that can be gone on from at this border, and such whose rows end less than a chunk
  // behind it.
  struct Node {
    absl::InlinedVector<uint64_t, 1> whole, behind;
    bool empty() const { return whole.empty() && behind.empty(); }
  };

  void End(PrefixUse& use);
  int64_t NowMicros() const;
  // Entries that end behind the node's border with the same tokens as `chain`.
  std::vector<uint64_t> WithSameRest(const Node& node, const PrefixChain& chain) const;
  void Insert(Entry& entry);
  void Remove(const Entry& entry, uint64_t from_border);
  void Drop(uint64_t id, RemovalCause cause);
  // The entries whose last chunks are victims: cuts or drops them, or spares them. How many.
  uint64_t Apply(std::span<const eviction::Eviction> evicted, const Spares& spares = {});
  // Returns where what it has dropped was gone on from, as Entry::forked_rows.
  uint64_t DropSuperfluous(const Snapshot& snapshot);
  // Knows all of its chunks again.
  void TellPolicyOf(const Snapshot& snapshot);
  void RememberEvicted(const ChainKey& key_in_form);
  // The row is well before the end of an entry: those who ask for all but the last tokens end
  // behind.
  static bool IsFork(uint64_t row, uint64_t rows) { return row + 2 * kChunkTokens <= rows; }
  PrefixChange ChangeOf(const Snapshot& snapshot, uint64_t id, uint64_t rows,
                        std::vector<ChainKey> keys) const;
  static std::vector<ChainKey> KeysInForm(const Snapshot& snapshot);
  // Of the chunks behind which it can be gone on from, or of the last whole one.
  static std::vector<ChainKey> AttachableKeys(const Snapshot& snapshot);

  Options options_;
  PrefixEvents* events_;
  const Instant* now_;
  std::string tenant_;
  std::unique_ptr<eviction::EvictionPolicy> policy_;
  std::map<uint64_t, Entry> entries_;
  absl::flat_hash_map<ChainKey, Node> nodes_;  // by InForm(key of the chunk before the border)
  absl::flat_hash_map<ChainKey, Instant> evicted_at_;
  uint64_t next_id_ = 1;
  uint64_t changes_ = 0;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_PREFIX_CACHE_H_
