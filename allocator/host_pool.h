// HostPool: the host memory that the daemon may use, as a budget of bytes and a stock of extents
// that are already touched, so that nothing on the hot path meets a fresh page.
//
// INVARIANT (checked by CheckConservation): pool + over = charged + ready + idle, where charged is
// what Take() has given out and not got back, ready is touched and waiting, idle is only a promise,
// and over is what is charged beyond the size since the pool was made smaller: with over > 0
// nothing is ready or idle. Thread-safe. Does not know tenants: daemon/core does.
#ifndef KVASIR_ALLOCATOR_HOST_POOL_H_
#define KVASIR_ALLOCATOR_HOST_POOL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/extent.h"
#include "base/mutex.h"

namespace kvasir {

enum class Demand { kOff, kTry, kRequire };

struct HostPoolOptions {
  uint64_t pool_bytes = 0;
  uint64_t extent_bytes = 32ULL << 20;       // of the large extents in stock
  uint64_t small_extent_bytes = 4ULL << 20;  // of the small ones: first extents of a session
  uint64_t ready_bytes = 0;                  // how much is kept touched; at most pool_bytes
  Demand lock = Demand::kTry;                // mlock
  Demand huge_pages = Demand::kOff;          // transparent huge pages of shmem
  int numa_node = -1;
  // Of extents that are taken over from a process before (Extent::Adopt()): charged from the start,
  // and given back by Return() as others. Their ids are below `first_id`.
  uint64_t adopted_bytes = 0;
  uint64_t first_id = 1;
  uint64_t ready_at_start_bytes = UINT64_MAX;  // what is touched by Create(); RefillOnce() the rest
};

struct HostPoolCounts {
  uint64_t pool_bytes = 0;  // the size now
  uint64_t charged_bytes = 0;
  uint64_t ready_bytes = 0;
  uint64_t idle_bytes = 0;
  uint64_t over_bytes = 0;   // charged beyond the size
  uint64_t late_faults = 0;  // extents that were touched while somebody waited
  bool locked = false;       // every extent so far is locked in memory
};

class HostPool {
 public:
  // (bytes touched so far, bytes wanted)
  using Progress = std::function<void(uint64_t, uint64_t)>;

  // Checks that the host and its cgroup have the memory, then fills the stock.
  // Errors: kResourceExhausted with the figures (memory, or memlock limit with Demand::kRequire),
  // kFailedPrecondition for huge pages or a NUMA node that the host does not have.
  static absl::StatusOr<std::unique_ptr<HostPool>> Create(const HostPoolOptions& options,
                                                          const Progress& progress);

  // An extent of exactly `bytes` (a page multiple), sealed for `use`. Taken from the stock by
  // cutting a larger one down, else made on the spot (counted in late_faults). Errors:
  // kResourceExhausted with the figures.
  absl::StatusOr<std::unique_ptr<Extent>> Take(uint64_t bytes, ExtentUse use);

  // Destroys an extent that Take() gave. REQUIRES: nobody else holds it (Extent::Probe).
  void Return(std::unique_ptr<Extent> extent);
  // The bytes of an extent that Take() gave have been taken back (Extent::TakeBack): they are the
  // pool's again, while its owner waits for the last holder of what is left of it.
  void TakenBack(uint64_t id, uint64_t bytes);
  // Is told the id of each extent that has been returned or taken back; takes no lock that is held
  // while the pool is called. Set once, before threads start.
  void set_returned(std::function<void(uint64_t)> returned) { returned_ = std::move(returned); }

  // There is an extent to make for the stock. Cost: a lock.
  bool WantsRefill() const;
  // Makes at most one extent for the stock; true if it made one. Called by a background thread.
  bool RefillOnce();

  // Changes the size. A larger one holds at once. So does a smaller one for what is taken from then
  // on: what is idle goes first, then stock, which the kernel gets back; what is charged stays
  // until it is returned. Errors: kResourceExhausted with the figures where the host, its cgroup
  // or, with Demand::kRequire, the memlock limit have no room for all that is not touched yet.
  // Cost: of a smaller size that of freeing the stock, about 0.1 ms a MiB.
  absl::Status Resize(uint64_t pool_bytes);

  HostPoolCounts counts() const;
  // OK, or kInternal naming the sum that is off.
  absl::Status CheckConservation() const;

 private:
  explicit HostPool(const HostPoolOptions& options)
      : options_(options), next_id_(options.first_id) {}

  absl::StatusOr<std::unique_ptr<Extent>> Make(uint64_t bytes);
  uint64_t NextStockBytesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Bytes that are charged to nobody any more: first they pay what is over, the rest is idle.
  void FreeLocked(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The largest extent in stock becomes idle bytes; its memory goes with what is returned.
  std::unique_ptr<Extent> UnstockLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const HostPoolOptions options_;  // pool_bytes: at the start
  std::function<void(uint64_t)> returned_;
  mutable Mutex mutex_;  // leaf lock; not held while pages are touched
  std::multimap<uint64_t, std::unique_ptr<Extent>> stock_ ABSL_GUARDED_BY(mutex_);  // by bytes
  uint64_t pool_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t charged_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t ready_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t over_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t late_faults_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_);
  bool locked_ ABSL_GUARDED_BY(mutex_) = true;
  bool lock_refused_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_HOST_POOL_H_
