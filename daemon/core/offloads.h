// Offloads: host memory as the level below the devices of a host. What a device has cached and
// saved when it fills up goes down before its room is wanted, and comes up when somebody goes on
// from it.
//
// A group that has moved knows its twin in the other memory, so what lies in both is copied once,
// and prefixes that share groups in one memory share them in the other. Rows go up into the
// asking tenant's own memory alone. Knows no thread: Take() gives work, Finish() takes it back.
// Not thread-safe: used with the core's lock.
#ifndef KVASIR_DAEMON_CORE_OFFLOADS_H_
#define KVASIR_DAEMON_CORE_OFFLOADS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "daemon/core/offload_job.h"
#include "daemon/core/tenant.h"

namespace kvasir::core {

class Offloads {
 public:
  struct Options {
    // Of a tenant's limit on a device: from the first on all is copied, and what is worth least
    // goes, until what is left there is at the second.
    uint32_t high_percent = 80, low_percent = 60;
    // Between the two it goes on with what it was at.
    bool IsPressed(uint64_t bytes, uint64_t limit, bool was) const {
      return bytes >= limit / 100 * (was ? low_percent : high_percent);
    }
  };
  // `now` must outlive it.
  Offloads(const Options& options, const Instant& now) : options_(options), now_(now) {}

  // Work for a thread of the device, in its direction; null: there is none. What is asked for
  // first; then what should go down, tenants in turn, a prefix or saved sequence each.
  std::unique_ptr<OffloadJob> Take(const DeviceMemory& device, device::CopyDirection direction,
                                   std::span<const std::unique_ptr<Tenant>> tenants);
  // What was moved is found from now on; a saved sequence then lies where it was moved to.
  void Finish(std::unique_ptr<OffloadJob> job);

  // Begins to move a prefix of the tenant's to the memory of `to` (null: the host's), or joins a
  // move of it. Its id, for IsOut(). Where it is awaited nothing takes it from there before
  // Settle() or the end of kKeptFor. Errors: kFailedPrecondition (from device to device),
  // kResourceExhausted (no room there).
  absl::StatusOr<uint64_t> BringPrefix(Tenant& tenant, std::shared_ptr<const Snapshot> from,
                                       uint64_t entry, DeviceMemory* to, bool is_awaited);
  absl::StatusOr<uint64_t> BringSaved(Tenant& tenant, const SnapshotId& id,
                                      std::shared_ptr<const Snapshot> from, DeviceMemory* to);
  // It has not ended.
  bool IsOut(uint64_t id) const { return out_.contains(id); }
  // Who has waited for it has gone on from it, or does not wait any more.
  void Settle(uint64_t id);

  // For the books: every snapshot that a job names, taken or not, and what was awaited.
  void ForEachSnapshot(const std::function<void(const Snapshot&)>& visit) const;
  // Of the daemon's end: what nobody has taken is forgotten.
  void Clear();

  static constexpr std::chrono::seconds kKeptFor{5};

 private:
  // What somebody has waited for: with devices that are full it would go back at once.
  struct Arrived {
    std::shared_ptr<const Snapshot> snapshot;  // shared with the place that it is found in
    PrefixPin pin;                             // a prefix: in its cache
    Instant until;
    uint32_t waiters = 0;
  };
  // What is known of a job, whoever has it.
  struct Out {
    const Tenant* tenant = nullptr;
    const DeviceMemory* to = nullptr;
    uint64_t entry = 0, rows = 0;
    std::optional<SnapshotId> saved;
    uint64_t prefix_drops = 0;  // of the tenant, at its beginning
    uint32_t waiters = 0;
    std::shared_ptr<const Snapshot> from, copy;  // named as long as the job is out
  };

  // Errors: of the allocators.
  static absl::StatusOr<std::unique_ptr<OffloadJob>> MakeJob(Tenant& tenant, TenantDevice& device,
                                                             std::shared_ptr<const Snapshot> from,
                                                             DeviceMemory* to);
  absl::StatusOr<uint64_t> Bring(Tenant& tenant, std::shared_ptr<const Snapshot> from,
                                 uint64_t entry, const std::optional<SnapshotId>& saved,
                                 DeviceMemory* to, bool is_awaited);
  uint64_t Begin(std::unique_ptr<OffloadJob> job);
  std::unique_ptr<OffloadJob> Pop(const DeviceMemory& device, device::CopyDirection direction);
  // Queues what of the tenant's should go down; false: nothing should.
  bool AskDown(Tenant& tenant, TenantDevice& device);
  bool BeginDown(Tenant& tenant, TenantDevice& device, std::shared_ptr<const Snapshot> from,
                 uint64_t entry, const std::optional<SnapshotId>& saved);
  bool UpdatePressed(TenantDevice& device) const;
  void DropBelowLowWatermark(Tenant& tenant, TenantDevice& device) const;

  const Options options_;
  const Instant& now_;
  std::deque<std::unique_ptr<OffloadJob>> queue_;  // the older ones first
  std::map<uint64_t, Out> out_;                    // by job
  std::map<uint64_t, Arrived> arrived_;            // likewise
  size_t turn_ = 0;                                // of the tenants
  uint64_t next_id_ = 1;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_OFFLOADS_H_
