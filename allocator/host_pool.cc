#include "allocator/host_pool.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <string>
#include <utility>

#include "allocator/host_memory.h"
#include "allocator/numa_node.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

uint64_t MemlockLimit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 ? limit.rlim_cur : 0;
}

// Whether this process may lock that much, asked of the kernel itself: limit and capability alike.
// Locks nothing for good and touches no page.
bool MayLock(uint64_t bytes) {
  void* const map =
      ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return false;
  const bool locked = ::mlock2(map, bytes, MLOCK_ONFAULT) == 0;
  ::munmap(map, bytes);
  return locked;
}

// Whether the host has room for `untouched_bytes` more of a pool of this size.
absl::Status CheckRoom(uint64_t pool_bytes, uint64_t untouched_bytes) {
  const HostMemory host = ReadHostMemory();
  if (untouched_bytes > host.available_bytes) {
    return ResourceExhausted(
        "the host has too little memory for the pool: memory.pool_bytes={} untouched_bytes={} "
        "available_bytes={} total_bytes={}",
        pool_bytes, untouched_bytes, host.available_bytes, host.total_bytes);
  }
  if (host.cgroup_limit_bytes > 0 &&
      host.cgroup_used_bytes + untouched_bytes > host.cgroup_limit_bytes) {
    return ResourceExhausted(
        "the daemon's cgroup is too small for the pool: memory.pool_bytes={} untouched_bytes={} "
        "cgroup_limit_bytes={} cgroup_used_bytes={}",
        pool_bytes, untouched_bytes, host.cgroup_limit_bytes, host.cgroup_used_bytes);
  }
  return absl::OkStatus();
}

absl::Status LockingIsRefused(uint64_t pool_bytes) {
  return ResourceExhausted(
      "memory.lock=require, but memory cannot be locked: raise LimitMEMLOCK (systemd) or "
      "`ulimit -l` to at least pool_bytes={}, or set memory.lock=try; limit_bytes={}",
      pool_bytes, MemlockLimit());
}

absl::Status CheckHost(const HostPoolOptions& options) {
  const uint64_t adopted = std::min(options.adopted_bytes, options.pool_bytes);
  KVASIR_RETURN_IF_ERROR(CheckRoom(options.pool_bytes, options.pool_bytes - adopted));
  if (options.numa_node >= 0) KVASIR_RETURN_IF_ERROR(CheckNumaNode(options.numa_node));
  const std::string shmem = ReadKernelFile("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  const bool off = shmem.empty() || shmem.find("[never]") != std::string::npos ||
                   shmem.find("[deny]") != std::string::npos;
  if (options.huge_pages != Demand::kOff && off) {
    if (options.huge_pages == Demand::kRequire) {
      return FailedPrecondition(
          "memory.huge_pages=require, but the kernel gives shared memory none: "
          "/sys/kernel/mm/transparent_hugepage/shmem_enabled={}",
          shmem);
    }
    spdlog::warn("no huge pages for shared memory, going on with small ones: shmem_enabled={}",
                 shmem.substr(0, shmem.find('\n')));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostPool>> HostPool::Create(const HostPoolOptions& options,
                                                           const Progress& progress) {
  KVASIR_RETURN_IF_ERROR(CheckHost(options));
  std::unique_ptr<HostPool> pool(new HostPool(options));
  {
    MutexLock lock(pool->mutex_);
    pool->pool_bytes_ = options.pool_bytes;
    pool->charged_ = options.adopted_bytes;
    const uint64_t adopted = std::min(options.adopted_bytes, options.pool_bytes);
    pool->idle_ = options.pool_bytes - adopted;
    pool->over_ = options.adopted_bytes - adopted;
  }
  if (options.lock != Demand::kOff && !MayLock(options.pool_bytes)) {
    if (options.lock == Demand::kRequire) return LockingIsRefused(options.pool_bytes);
    spdlog::warn("memory is not locked and may be swapped: pool_bytes={} limit_bytes={}",
                 options.pool_bytes, MemlockLimit());
    MutexLock lock(pool->mutex_);
    pool->lock_refused_ = true;
    pool->locked_ = false;
  }
  if (options.ready_bytes > 0) {
    const uint64_t wanted = std::min(options.ready_bytes, options.ready_at_start_bytes);
    while (pool->counts().ready_bytes < wanted && pool->RefillOnce()) {
      if (progress) progress(pool->counts().ready_bytes, wanted);
    }
  }
  // What was taken over may have filled it.
  const bool must_have_some = options.ready_bytes > 0 && options.adopted_bytes == 0;
  if (must_have_some && pool->counts().ready_bytes == 0) {
    return ResourceExhausted("no memory for the pool: memory.pool_bytes={}", options.pool_bytes);
  }
  return pool;
}

absl::StatusOr<std::unique_ptr<Extent>> HostPool::Make(uint64_t bytes) {
  uint64_t id = 0;
  bool try_lock = false;
  {
    MutexLock lock(mutex_);
    id = next_id_++;
    try_lock = options_.lock != Demand::kOff && !lock_refused_;
  }
  Extent::Options extent_options;
  extent_options.bytes = bytes;
  extent_options.numa_node = options_.numa_node;
  extent_options.transparent_huge_pages = options_.huge_pages != Demand::kOff;
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Extent> extent, Extent::Create(extent_options, id));
  const absl::Status lock_status = try_lock ? extent->Lock() : absl::OkStatus();
  if (!lock_status.ok() && options_.lock == Demand::kRequire) return lock_status;
  MutexLock lock(mutex_);
  if (!try_lock) locked_ = false;
  if (!lock_status.ok()) {
    if (!lock_refused_) {
      spdlog::warn("memory is not locked and may be swapped: {}", MessageOf(lock_status));
    }
    lock_refused_ = true;
    locked_ = false;
  }
  return extent;
}

uint64_t HostPool::NextStockBytesLocked() const {
  if (ready_ >= options_.ready_bytes) return 0;
  // A quarter of the stock in small extents: what a new session takes first.
  uint64_t small = 0;
  for (const auto& [bytes, extent] : stock_) {
    if (bytes <= options_.small_extent_bytes) small += bytes;
  }
  const bool want_small = small * 4 < ready_;
  const uint64_t wanted = want_small ? options_.small_extent_bytes : options_.extent_bytes;
  if (idle_ >= wanted) return wanted;
  return idle_ >= options_.small_extent_bytes ? options_.small_extent_bytes : 0;
}

void HostPool::FreeLocked(uint64_t bytes) {
  const uint64_t paid = std::min(over_, bytes);
  over_ -= paid;
  idle_ += bytes - paid;
}

std::unique_ptr<Extent> HostPool::UnstockLocked() {
  const auto last = std::prev(stock_.end());
  ready_ -= last->first;
  FreeLocked(last->first);
  std::unique_ptr<Extent> extent = std::move(last->second);
  stock_.erase(last);
  return extent;
}

absl::Status HostPool::Resize(uint64_t pool_bytes) {
  const HostPoolCounts now = counts();
  const uint64_t touched = now.charged_bytes + now.ready_bytes;
  if (pool_bytes > now.pool_bytes && pool_bytes > touched) {
    KVASIR_RETURN_IF_ERROR(CheckRoom(pool_bytes, pool_bytes - touched));
    if (options_.lock == Demand::kRequire && !MayLock(pool_bytes - touched)) {
      return LockingIsRefused(pool_bytes);
    }
  }
  std::vector<std::unique_ptr<Extent>> given_up;  // destroyed outside the lock
  MutexLock lock(mutex_);
  if (pool_bytes >= pool_bytes_) {
    FreeLocked(pool_bytes - std::exchange(pool_bytes_, pool_bytes));
    return absl::OkStatus();
  }
  const uint64_t less = std::exchange(pool_bytes_, pool_bytes);
  while (idle_ < less - pool_bytes && !stock_.empty()) given_up.push_back(UnstockLocked());
  const uint64_t from_idle = std::min(idle_, less - pool_bytes);
  idle_ -= from_idle;
  over_ += less - pool_bytes - from_idle;
  return absl::OkStatus();
}

bool HostPool::WantsRefill() const {
  MutexLock lock(mutex_);
  return NextStockBytesLocked() > 0;
}

bool HostPool::RefillOnce() {
  uint64_t bytes = 0;
  {
    MutexLock lock(mutex_);
    bytes = NextStockBytesLocked();
    if (bytes == 0) return false;
    idle_ -= bytes;  // reserved while the lock is not held
    charged_ += bytes;
  }
  absl::StatusOr<std::unique_ptr<Extent>> extent = Make(bytes);
  MutexLock lock(mutex_);
  charged_ -= bytes;
  if (!extent.ok()) {
    FreeLocked(bytes);
    spdlog::error("the pool's stock cannot be filled: bytes={} {}", bytes,
                  MessageOf(extent.status()));
    return false;
  }
  if (over_ > 0) {  // the pool was made smaller meanwhile
    FreeLocked(bytes);
    return false;
  }
  ready_ += bytes;
  stock_.emplace(bytes, *std::move(extent));
  return true;
}

absl::StatusOr<std::unique_ptr<Extent>> HostPool::Take(uint64_t bytes, ExtentUse use) {
  std::unique_ptr<Extent> extent;
  std::vector<std::unique_ptr<Extent>> sacrificed;  // destroyed outside the lock
  {
    MutexLock lock(mutex_);
    const auto fit = stock_.lower_bound(bytes);
    if (fit != stock_.end()) {
      extent = std::move(fit->second);
      ready_ -= fit->first;
      idle_ += fit->first - bytes;
      stock_.erase(fit);
    } else {
      if (idle_ + ready_ < bytes) {
        return ResourceExhausted(
            "the host pool is full: wanted_bytes={} free_bytes={} charged_bytes={} pool_bytes={}",
            bytes, idle_ + ready_, charged_, pool_bytes_);
      }
      // None in stock is large enough: turn stock back into budget, then make one.
      while (idle_ < bytes) sacrificed.push_back(UnstockLocked());
      idle_ -= bytes;
      ++late_faults_;
    }
    charged_ += bytes;
  }
  sacrificed.clear();
  absl::Status status;
  if (extent == nullptr) {
    absl::StatusOr<std::unique_ptr<Extent>> made = Make(bytes);
    if (made.ok()) {
      extent = *std::move(made);
    } else {
      status = made.status();
    }
  } else {
    status = extent->Shrink(bytes);
  }
  if (status.ok()) status = extent->Seal(use);
  if (status.ok()) return extent;
  MutexLock lock(mutex_);
  charged_ -= bytes;
  FreeLocked(bytes);
  return status;
}

void HostPool::Return(std::unique_ptr<Extent> extent) {
  const uint64_t bytes = extent->bytes(), id = extent->id();
  extent.reset();
  TakenBack(id, bytes);
}

void HostPool::TakenBack(uint64_t id, uint64_t bytes) {
  if (returned_) returned_(id);
  MutexLock lock(mutex_);
  charged_ -= bytes;
  FreeLocked(bytes);
}

HostPoolCounts HostPool::counts() const {
  MutexLock lock(mutex_);
  return {pool_bytes_,
          charged_,
          ready_,
          idle_,
          over_,
          late_faults_,
          locked_ && options_.lock != Demand::kOff};
}

absl::Status HostPool::CheckConservation() const {
  MutexLock lock(mutex_);
  uint64_t in_stock = 0;
  for (const auto& [bytes, extent] : stock_) in_stock += bytes;
  if (in_stock != ready_) {
    return Internal("stock and its count differ: stock_bytes={} ready_bytes={}", in_stock, ready_);
  }
  if (charged_ + ready_ + idle_ != pool_bytes_ + over_ || (over_ > 0 && ready_ + idle_ > 0)) {
    return Internal("pool bytes do not add up: charged={} ready={} idle={} pool={} over={}",
                    charged_, ready_, idle_, pool_bytes_, over_);
  }
  return absl::OkStatus();
}

}  // namespace kvasir
