// HandoverJob: work on what outlives this process in memory, done off the lock by one thread.
//
// Like SequenceJob it belongs to the core's books: made by TakeHandoverJob(), given back to
// FinishHandoverJob(), destroyed there.
#ifndef KVASIR_DAEMON_CORE_HANDOVER_JOB_H_
#define KVASIR_DAEMON_CORE_HANDOVER_JOB_H_

#include <cstdint>
#include <memory>
#include <vector>

#include <absl/status/status.h>

#include "daemon/core/snapshot_groups.h"

namespace kvasir::core {

struct Tenant;

struct HandoverJob {
  enum class Kind {
    kVerify,  // compares adopted groups with what the process before said of them
    kNote,    // writes down where the groups of a prefix lie
    kForget,  // strikes out what was written down as `record`
    kRehome,  // copies groups out of a frozen extent
  };
  struct Item {
    SnapshotGroup at;
    std::shared_ptr<KeptGroup> copy;  // kRehome: filled by the worker
    GroupDigest digest{};             // expected; kNote: what the worker found
    bool digested = false;            // kNote: it is known already
  };

  Kind kind = Kind::kNote;
  Tenant* tenant = nullptr;  // lives as long as the core
  uint64_t id = 0;           // of a load, for kVerify
  uint64_t entry = 0;        // kVerify: of the adopted prefixes; kNote: of the memory's cache
  std::shared_ptr<const Snapshot> snapshot;  // kVerify, kNote; shared with the cache
  std::vector<TokenId> tokens;               // kNote: of its rows, where it is whole
  std::vector<Item> items;
  std::vector<LaneLayout> layouts;  // kRehome: that the groups refer to, whoever has gone meanwhile
  uint64_t record = 0;              // kForget; the worker's answer to kNote

  // The worker's answer. kVerify: kDataLoss where a byte is not as it was.
  absl::Status status;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_HANDOVER_JOB_H_
