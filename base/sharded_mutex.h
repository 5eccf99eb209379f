// ShardedMutex: a lock over something that falls into parts: held as a whole, or for one part.
//
// Whoever holds it as a whole has it alone. Holders of different shards have theirs at once, and
// write no cache line of each other's: what a shard's holder writes is the shard's own line, and
// what it reads beside that is written by those alone who want the whole.
//
// Nobody starves. Who wants the whole keeps new ones out of the shards, so that it waits for one
// holder of each at most, or for those who stood in front of that shard already; who wants a shard
// meanwhile stands in line with those who want the whole, and has its shard next once it is
// through.
//
// Lock order: the gate, then the shards by number; a thread holds the whole or one shard, never
// two.
#ifndef KVASIR_BASE_SHARDED_MUTEX_H_
#define KVASIR_BASE_SHARDED_MUTEX_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <absl/base/thread_annotations.h>

#include "base/mutex.h"

namespace kvasir {

// As a lockable thing it is the whole: MutexLock lock(sharded). A shard has an owner of its own,
// which says what may be reached under it (daemon/shared_core.h: TenantLock).
class ABSL_LOCKABLE ShardedMutex {
 public:
  // How often somebody had to wait, and how long in all.
  struct Waits {
    uint64_t times = 0;
    std::chrono::nanoseconds time{};
  };

  // REQUIRES: shards > 0. Cost of the whole: a lock more for each shard, some 10 ns.
  explicit ShardedMutex(size_t shards) : shards_(shards) {}
  ShardedMutex(const ShardedMutex&) = delete;
  ShardedMutex& operator=(const ShardedMutex&) = delete;

  // The whole.
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION();
  void Unlock() ABSL_UNLOCK_FUNCTION();
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}
  // As CondVar::Wait() and WaitUntil(). REQUIRES: who notifies has the whole, or what is waited for
  // does not change under a shard.
  void Wait(CondVar& condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this);
  bool WaitUntil(CondVar& condition, std::chrono::steady_clock::time_point deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this);
  // For who takes the whole again and again: as Mutex::LetOthers().
  void LetOthers() ABSL_LOCKS_EXCLUDED(this) { gate_.LetOthers(); }

  // One shard. REQUIRES: shard < shards(); the thread holds neither the whole nor a shard.
  void LockShard(size_t shard);
  void UnlockShard(size_t shard);
  // For who takes this shard again and again.
  void LetOthersOfShard(size_t shard) {
    gate_.LetOthers();
    shards_[shard].mutex.LetOthers();
  }

  size_t shards() const { return shards_.size(); }
  // Sums that grow, for people; not of one moment.
  Waits whole_waits() const { return whole_waits_.Get(); }
  Waits shard_waits() const;

 private:
  // Changed by one thread at a time, read by any.
  struct Counters {
    void Add(std::chrono::steady_clock::time_point since);
    Waits Get() const;
    std::atomic<uint64_t> times = 0, nanoseconds = 0;
  };
  // Two lines: processors fetch them in pairs.
  struct alignas(128) Shard {
    Mutex mutex;
    Counters waits;
  };

  void LockShards();
  void UnlockShards();

  std::vector<Shard> shards_;
  alignas(128) std::atomic<uint32_t> wanted_ = 0;  // how many have or want the whole
  Mutex gate_;            // of who has the whole, and of who stands in line
  Counters whole_waits_;  // under the gate
};

}  // namespace kvasir

#endif  // KVASIR_BASE_SHARDED_MUTEX_H_
