#include "base/sharded_mutex.h"

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

void ShardedMutex::Counters::Add(Clock::time_point since) {
  const auto waited = std::chrono::nanoseconds(Clock::now() - since).count();
  // One writer: a load and a store are enough.
  times.store(times.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  nanoseconds.store(nanoseconds.load(std::memory_order_relaxed) + static_cast<uint64_t>(waited),
                    std::memory_order_relaxed);
}

ShardedMutex::Waits ShardedMutex::Counters::Get() const {
  return {times.load(std::memory_order_relaxed),
          std::chrono::nanoseconds(nanoseconds.load(std::memory_order_relaxed))};
}

void ShardedMutex::LockShards() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  for (Shard& shard : shards_) shard.mutex.Lock();
}

void ShardedMutex::UnlockShards() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  for (Shard& shard : shards_) shard.mutex.Unlock();
}

void ShardedMutex::Lock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  // relaxed: a hint that keeps others from taking shards; what is guarded is ordered by the
  // mutexes.
  wanted_.fetch_add(1, std::memory_order_relaxed);
  Clock::time_point since{};
  if (!gate_.TryLock()) {
    since = Clock::now();
    gate_.Lock();
  }
  for (Shard& shard : shards_) {
    if (shard.mutex.TryLock()) continue;
    if (since == Clock::time_point{}) since = Clock::now();
    shard.mutex.Lock();
  }
  if (since != Clock::time_point{}) whole_waits_.Add(since);
}

void ShardedMutex::Unlock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  UnlockShards();
  wanted_.fetch_sub(1, std::memory_order_relaxed);
  gate_.Unlock();
}

void ShardedMutex::Wait(CondVar& condition) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  UnlockShards();
  wanted_.fetch_sub(1, std::memory_order_relaxed);
  condition.Wait(gate_);
  wanted_.fetch_add(1, std::memory_order_relaxed);
  LockShards();
}

bool ShardedMutex::WaitUntil(CondVar& condition,
                             Clock::time_point deadline) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  UnlockShards();
  wanted_.fetch_sub(1, std::memory_order_relaxed);
  const bool notified = condition.WaitUntil(gate_, deadline);
  wanted_.fetch_add(1, std::memory_order_relaxed);
  LockShards();
  return notified;
}

void ShardedMutex::LockShard(size_t index) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  Shard& shard = shards_[index];
  const bool wanted = wanted_.load(std::memory_order_relaxed) > 0;
  if (!wanted && shard.mutex.TryLock()) return;
  const Clock::time_point since = Clock::now();
  if (wanted) {
    gate_.Lock();  // with it nobody has the whole, so that the shard comes soon
    shard.mutex.Lock();
    gate_.Unlock();
  } else {
    shard.mutex.Lock();
  }
  shard.waits.Add(since);
}

void ShardedMutex::UnlockShard(size_t index) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  shards_[index].mutex.Unlock();
}

ShardedMutex::Waits ShardedMutex::shard_waits() const {
  Waits all;
  for (const Shard& shard : shards_) {
    const Waits one = shard.waits.Get();
    all.times += one.times;
    all.time += one.time;
  }
  return all;
}

}  // namespace kvasir
