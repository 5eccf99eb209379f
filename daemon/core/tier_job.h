// TierJob: work between the core and a tier, done off the lock by a thread that may wait.
//
// Like SequenceJob it belongs to the core's books: made by TakeTierJob(), given back to
// FinishTierJob(), destroyed there.
#ifndef KVASIR_DAEMON_CORE_TIER_JOB_H_
#define KVASIR_DAEMON_CORE_TIER_JOB_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "allocator/tier/tier.h"
#include "daemon/core/snapshot_groups.h"

namespace kvasir::core {

struct Tenant;

// Reads are waited for; they have a thread of their own.
enum class TierLane { kReads, kWrites };

struct TierJob {
  enum class Kind {
    kLoad,   // fills the groups of `items` from the tier
    kStore,  // writes them, then a manifest of `snapshot`
    kErase,  // forgets `keys`
  };
  // One group of a prefix. Its planes are the value; its trailer follows from `snapshot`.
  struct Item {
    SnapshotGroup at;
    GroupDigest digest{};                      // kStore: what the worker found
    std::shared_ptr<const StoredBlock> block;  // kLoad: where it is
  };

  Kind kind = Kind::kErase;
  size_t tier = 0;
  Tenant* tenant = nullptr;  // lives as long as the core
  uint64_t id = 0;
  uint64_t entry = 0;                        // kLoad: of the tier's cache
  std::optional<SnapshotId> saved;           // it is no prefix but a saved sequence
  uint64_t bytes = 0;                        // that are moved, at most
  std::shared_ptr<const Snapshot> snapshot;  // kLoad: as it will be; kStore: as it is
  std::vector<TokenId> tokens;               // kStore: of its rows, where it is whole
  std::vector<Item> items;
  std::vector<TierKey> keys;

  // The worker's answer.
  absl::Status status;                        // kStore, kErase
  ReadOutcome outcome = ReadOutcome::kHit;    // kLoad: the first that is no hit
  std::array<uint8_t, 16> manifest_digest{};  // kStore
  uint64_t manifest_bytes = 0;
  std::string state;                // kStore: of what is not whole, SaveSnapshot()
  bool has_no_state = false;        // kStore: SaveSnapshot() said no, and will again
  std::chrono::nanoseconds took{};  // kLoad
};

// What the core knows of a tier and of the reads that are under way.
struct TierQueue {
  std::deque<std::unique_ptr<TierJob>> reads, writes;  // the older ones first
  double read_bytes_per_s = 0;                         // measured; 0: not yet
  size_t turn = 0;                                     // of the tenants
  uint64_t capacity_bytes = 0;                         // TierConfig's
};
struct TierLoad {
  size_t tier = 0;
  const Tenant* tenant = nullptr;
  uint64_t entry = 0, rows = 0, bytes = 0;
  std::optional<SnapshotId> saved;  // instead of an entry
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TIER_JOB_H_
