// SharedCore: KvCore and its lock, and the conditions that threads wait for.
#ifndef KVASIR_DAEMON_SHARED_CORE_H_
#define KVASIR_DAEMON_SHARED_CORE_H_

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/sharded_mutex.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/tenant_verbs.h"

namespace kvasir {

// What waits for progress: threads, and those of the rings, which sleep in epoll.
class Progress {
 public:
  // One that sleeps in epoll: while it `watches`, NotifyAll() writes to its eventfd.
  struct Watcher {
    explicit Watcher(int event_fd) : event(event_fd) {}
    const int event;
    std::atomic<bool> watches = false;
  };

  // How much has happened so far. Asked under the core's lock before one looks, it lets nothing
  // slip by that happens before one waits.
  uint64_t seen() const { return happened_.load(); }
  // Waits, without the core's lock, until more has happened, or the deadline has passed, or
  // `interrupted` is set before Interrupt().
  void WaitPast(uint64_t seen, Instant deadline, const std::atomic<bool>& interrupted) {
    MutexLock lock(mutex_);
    while (this->seen() == seen && !interrupted && SystemClock().Now() < deadline) {
      (void)happens_.WaitUntil(mutex_, deadline);
    }
  }
  void Interrupt() {
    { MutexLock lock(mutex_); }  // who has looked at the flag waits by now
    happens_.NotifyAll();
  }
  // With the whole of the core's lock, for the few that wait long, for what happens under it.
  bool WaitUntil(ShardedMutex& mutex, Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return mutex.WaitUntil(condition_, deadline);
  }
  void NotifyAll() {
    {
      MutexLock lock(mutex_);
      // seq_cst, as the flags are: who sets its flag and then asks seen() misses nothing.
      happened_.fetch_add(1);
      for (const Watcher* watcher : watchers_) {
        if (watcher->watches) (void)::eventfd_write(watcher->event, 1);
      }
    }
    happens_.NotifyAll();
    condition_.NotifyAll();
  }
  // The watcher must outlive its time here.
  void Add(const Watcher& watcher) {
    MutexLock lock(mutex_);
    watchers_.push_back(&watcher);
  }
  void Remove(const Watcher& watcher) {
    MutexLock lock(mutex_);
    std::erase(watchers_, &watcher);
  }

 private:
  Mutex mutex_;  // a leaf
  std::atomic<uint64_t> happened_ = 0;
  CondVar happens_;    // with mutex_
  CondVar condition_;  // with the core's
  std::vector<const Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
};

// `mutex` is the daemon's outermost lock; under it only leaf locks are taken. No system call that a
// peer could block is made under it. Its shards are the tenants', by their places: more tenants
// than kShardsMax share them, since who takes the whole takes each.
struct SharedCore {
  static constexpr size_t kShardsMax = 32;

  SharedCore(core::CoreConfig config, HostPool& pool)
      : rules(core::RulesOf(config)),
        mutex(std::clamp<size_t>(config.tenants.size(), 1, kShardsMax)),
        core(std::move(config), pool),
        jobs(core.jobs()) {}

  // Whose a peer is, without the lock.
  std::optional<size_t> PlaceOf(const core::Peer& peer) const {
    return rules.Find(peer.uid, peer.gid, peer.cgroup);
  }
  const core::TenantRules rules;

  ShardedMutex mutex;
  core::KvCore core ABSL_GUARDED_BY(mutex);
  core::JobQueue& jobs;  // of the core, with a lock of its own
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  CondVar tier_work;  // there may be work for tiers
  Progress progress;  // a job is finished, a session has ended, or stopping

  // Wakes the data server's thread, which takes leave of sessions that the core has ended. Set
  // once, before threads start.
  std::function<void()> wake_data_server;
};

// Holds a tenant's share of the core, and gives what may be done with that. The core itself is out
// of reach meanwhile: that the analysis of locks sees to, since the mutex is not held.
class TenantLock {
 public:
  // REQUIRES: the thread has neither the mutex nor a share.
  TenantLock(SharedCore& shared, size_t place)
      : mutex_(shared.mutex),
        share_(place % mutex_.shards()),
        verbs_(Unguarded(shared), share_, mutex_.shards()) {
    mutex_.LockShard(share_);
  }
  ~TenantLock() { mutex_.UnlockShard(share_); }
  TenantLock(const TenantLock&) = delete;
  TenantLock& operator=(const TenantLock&) = delete;

  core::TenantVerbs& verbs() { return verbs_; }

 private:
  static core::KvCore& Unguarded(SharedCore& shared) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return shared.core;
  }

  ShardedMutex& mutex_;
  const size_t share_;
  core::TenantVerbs verbs_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHARED_CORE_H_
