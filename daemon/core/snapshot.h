// Snapshot: a sequence at one row, from which others go on without computing anything again.
//
// It shares the filled groups of kept rows and records with the sequence that it was made of, and
// has copies of the recent blocks, which nobody but the daemon maps. Filled by one job
// (SequenceJob::copies), immutable and handed to the tenant after it; it refers to nothing of a
// session. Not thread-safe: made, shared and destroyed under the core's lock.
#ifndef KVASIR_DAEMON_CORE_SNAPSHOT_H_
#define KVASIR_DAEMON_CORE_SNAPSHOT_H_

#include <array>
#include <compare>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/device_memory.h"
#include "allocator/group_allocator.h"
#include "base/bytes.h"
#include "daemon/core/lane_table.h"
#include "daemon/core/model.h"
#include "daemon/core/record_format.h"
#include "daemon/core/stored_rows.h"
#include "index/prefix_chain.h"
#include "policies/policy_definition.h"

namespace kvasir::core {

// What is left of a prefix, the better the larger.
enum class QualityClass {
  kCompacted = 1,  // rows were dropped
  kQuantised = 2,  // every row, encoded
  kFull = 3,       // every row as written
};

// 128 random bits: who has them and is of the tenant may open it.
struct SnapshotId {
  std::array<uint8_t, 16> bytes{};
  friend auto operator<=>(const SnapshotId&, const SnapshotId&) = default;
};

// Bytes of one block on their way from or to a snapshot. They are opaque; nothing is read in them.
struct BlockCopy {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  uint64_t bytes = 0;
  DeviceMemory* device = nullptr;  // of which both are addresses; null: of the processor
};

// Blocks of the rows [recent_first, rows) that nobody has moved yet: [first, last). None where
// there are no such rows, though the engine may be amid a block.
inline std::pair<uint64_t, uint64_t> RecentBlocks(uint64_t recent_first, uint64_t rows,
                                                  uint32_t slots) {
  const uint64_t first = recent_first / slots;
  return {first, recent_first < rows ? DivideUp(rows, uint64_t{slots}) : first};
}

// Owned groups of one size; gives them back when destroyed.
class BlockList {
 public:
  explicit BlockList(GroupAllocator& allocator) : allocator_(allocator) {}
  BlockList(const BlockList&) = delete;
  BlockList& operator=(const BlockList&) = delete;
  ~BlockList();

  // Errors: the allocator's.
  absl::Status Add();
  // Takes over a group of the allocator's.
  void Take(const Group& group) { groups_.push_back(group); }
  const std::vector<Group>& groups() const { return groups_; }
  uint64_t bytes() const { return groups_.size() * allocator_.group_bytes(); }
  GroupAllocator& allocator() const { return allocator_; }

 private:
  GroupAllocator& allocator_;
  std::vector<Group> groups_;
};

// What a snapshot says beside what its lanes own: copied as a whole where one is cut.
struct SnapshotFacts {
  // The model as registered.
  ModelDescription model;
  DeviceMemory* device = nullptr;  // in whose memory the rows lie; null: in the host's
  uint32_t slots_per_block = 0;
  std::string retention;  // canonical
  PositionMode positions = PositionMode::kOriginal;
  std::vector<uint32_t> lane_of_layer;
  TableVersion table;                // of the query of row `rows`
  std::optional<TableVersion> next;  // published already, for later rows
  std::string label;                 // of the sequence it was made of
  uint64_t rows = 0;                 // the next query's row
  uint64_t first_rows = 0;           // it may be gone on from at any row from here to `rows`
  uint64_t prefill_rows = 0;         // that its policies were told of (PolicyContext::prompt_rows)
  QualityClass quality = QualityClass::kFull;
  bool encoded = false;              // only who reads encoded rows may go on from it
  uint64_t tokens_base = 0;          // row of the first of `tokens`
  std::deque<TokenId> tokens;        // up to row `rows`
  std::vector<TokenId> prompt;       // selection policies: what was chosen from, for people
  std::vector<uint32_t> chosen;      // rows of it
  std::optional<PrefixChain> chain;  // of its rows, where they may be shared as a prefix
  ChainKey form;                     // with a chain: what the retention made of the rows
  std::array<uint8_t, 16> model_fingerprint{};
  // Form that the daemon has brought into this retention; "": its engine has computed it so.
  std::string condensed_from;
};

// What the rows of a snapshot are, for people and for keys: "RETENTION", or "RETENTION condensed
// from FORM", which is no retention's text.
std::string FormName(const std::string& retention, const std::string& condensed_from);

class Snapshot : public SnapshotFacts {
 public:
  struct Lane {
    std::shared_ptr<const KeptShapes> kept_shapes;  // of the groups that the tables name
    std::shared_ptr<const LaneRecords> records;     // likewise; null: none is encoded
    std::unique_ptr<const RetentionPolicy> policy;  // cloned by each who goes on
    std::deque<RetentionPlan> pending;              // returned by the policy, in no table yet
    uint64_t base_block = 0;                        // of the first of `recent`
    // Null: none. Shared with snapshots that differ in kept groups alone.
    std::shared_ptr<const BlockList> recent;
    // Of the planes of `recent`, where a process before has said so (KeptGroup::promised).
    std::vector<GroupDigest> recent_promised;

    std::span<const Group> recent_groups() const {
      if (recent == nullptr) return {};
      return recent->groups();
    }
  };

  std::vector<Lane> lanes;
  // Its rows lie in a tier: it has no lanes then, and nobody goes on from it before it is loaded.
  std::shared_ptr<const StoredRows> stored;  // shared with the jobs that read it

  // Whether a sequence of `other` may go on from it. Errors: kFailedPrecondition naming the first
  // field that differs, without what stands in it, or the memory in which its rows lie.
  absl::Status CheckModel(const Model& other) const;
  // Likewise once its rows have been moved to the other's memory.
  absl::Status CheckModelAnywhere(const Model& other) const;

  // The same at an earlier row; shares all of its groups. REQUIRES: first_rows <= at <= rows, and
  // the chain, where there is one, is cut between chunks or not at all.
  std::shared_ptr<const Snapshot> Cut(uint64_t at) const;

  // The same rows where other groups have taken the place of some kept ones or records.
  std::shared_ptr<const Snapshot> WithGroups(
      const std::map<const KeptGroup*, std::shared_ptr<KeptGroup>>& replaced) const;
  // The same rows in the memory of `to` (null: the host's). REQUIRES: `replaced` has every group
  // that it names, and `recent` a list for each lane that has one.
  std::shared_ptr<const Snapshot> MovedTo(
      DeviceMemory* to, const std::map<const KeptGroup*, std::shared_ptr<KeptGroup>>& replaced,
      std::vector<std::shared_ptr<const BlockList>> recent) const;

  // Which memory its rows lie in, for people: "memory", or a device's pool.
  std::string place() const { return device == nullptr ? "memory" : device->name(); }

  // Filled groups that it shares with others.
  void AddSharedGroups(GroupSet* groups) const;
  uint64_t own_bytes() const;  // copies of recent blocks; on a device without their trailers
  // The same of those allocators alone that `owns` says.
  uint64_t own_bytes(const std::function<bool(const GroupAllocator*)>& owns) const;
  uint64_t held_bytes() const;  // of all that it names

 private:
  std::shared_ptr<Snapshot> CopyWith(
      const std::map<const KeptGroup*, std::shared_ptr<KeptGroup>>& replaced) const;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SNAPSHOT_H_
