// PoolSize: the size of the host pool while the daemon runs. An operator says what is wanted,
// memory pressure makes it less for a while.
//
// Thread-safe. Sizes change one after the other. The core's lock is taken again and again for short
// parts of a change, so that engines are served meanwhile.
#ifndef KVASIR_DAEMON_POOL_SIZE_H_
#define KVASIR_DAEMON_POOL_SIZE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include <absl/status/status.h>

#include "allocator/host_pool.h"
#include "base/mutex.h"
#include "daemon/shared_core.h"

namespace kvasir {

class PoolSize {
 public:
  // What is given must outlive it. `wake_refill` is called when there is more room.
  PoolSize(HostPool& pool, SharedCore& shared, std::function<void()> wake_refill)
      : pool_(pool),
        shared_(shared),
        wake_refill_(std::move(wake_refill)),
        wanted_(pool.counts().pool_bytes) {}
  PoolSize(const PoolSize&) = delete;
  PoolSize& operator=(const PoolSize&) = delete;

  // The size from now on, whatever pressure has made of it. Of a smaller pool tenants give up what
  // they hold for later until it fits, there is nothing, or `cancelled` says so: the size holds all
  // the same. Errors: kInvalidArgument naming pool_bytes and its bounds, those of
  // memory.pool_bytes; HostPool::Resize()'s.
  absl::Status Set(uint64_t pool_bytes, const std::function<bool()>& cancelled);

  // For memory pressure: smaller, as Set() does it, without a new wish. False: it is no larger now.
  bool Shrink(uint64_t pool_bytes);
  // Back, at most to what is wanted. Errors: HostPool::Resize()'s.
  absl::Status Grow(uint64_t pool_bytes);

  uint64_t wanted_bytes() const { return wanted_; }
  uint64_t pressure_shrinks() const { return pressure_shrinks_; }
  HostPoolCounts counts() const { return pool_.counts(); }

 private:
  void GiveUpCached(uint64_t charged_max, const std::function<bool()>& cancelled);

  HostPool& pool_;
  SharedCore& shared_;
  const std::function<void()> wake_refill_;
  Mutex mutex_;  // held over a change; the core's lock is taken under it
  std::atomic<uint64_t> wanted_;
  std::atomic<uint64_t> pressure_shrinks_{0};
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_POOL_SIZE_H_
