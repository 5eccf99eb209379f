// OffloadJob: rows on their way between a device and host memory, moved off the lock by a thread
// that may wait.
//
// Like SequenceJob it belongs to the core's books: made by TakeOffloadJob(), given back to
// FinishOffloadJob(), destroyed there.
#ifndef KVASIR_DAEMON_CORE_OFFLOAD_JOB_H_
#define KVASIR_DAEMON_CORE_OFFLOAD_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <absl/status/status.h>

#include "daemon/core/snapshot.h"
#include "device/offload/group_layout.h"

namespace kvasir::core {

struct Tenant;
struct TenantDevice;

struct OffloadJob {
  // One group, all of whose rows are copied; its trailer is host memory on both sides.
  struct Piece {
    Group host, device;
    const shm::GroupGeometry* geometry = nullptr;  // of both; lives as long as the snapshots
    // The new one, whose trailer follows from its slots; null: a recent block, whose is copied.
    std::shared_ptr<KeptGroup> filled;
  };

  device::CopyDirection direction = device::CopyDirection::kToHost;
  uint64_t id = 0;
  Tenant* tenant = nullptr;                  // lives as long as the core
  TenantDevice* device = nullptr;            // likewise
  std::optional<SnapshotId> saved;           // it is no prefix but a saved sequence
  uint64_t entry = 0;                        // else of the cache it comes from
  std::shared_ptr<const Snapshot> from, to;  // `to`: as it will be
  std::vector<Piece> pieces;                 // what `to` shares with others is there already
  // Groups of `from` and those of `to` that are filled from them.
  std::vector<std::pair<std::shared_ptr<KeptGroup>, std::shared_ptr<KeptGroup>>> twins;
  uint64_t bytes = 0;  // of rows, that are copied

  absl::Status status;  // the worker's answer
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_OFFLOAD_JOB_H_
