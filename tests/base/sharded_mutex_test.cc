// Goal: the whole excludes everything, shards exclude their own alone, nobody starves, and waiting
// for a condition lets everybody in. Method: counters that are no atomics, changed by many threads;
// what would be a race is one for ThreadSanitizer, too.
#include "base/sharded_mutex.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir {
namespace {

constexpr size_t kShards = 4;

class ShardGuard {
 public:
  ShardGuard(ShardedMutex& mutex, size_t shard) : mutex_(mutex), shard_(shard) {
    mutex_.LockShard(shard_);
  }
  ~ShardGuard() { mutex_.UnlockShard(shard_); }
  ShardGuard(const ShardGuard&) = delete;
  ShardGuard& operator=(const ShardGuard&) = delete;

 private:
  ShardedMutex& mutex_;
  const size_t shard_;
};

// Threads that run until the test has what it waits for.
class Threads {
 public:
  ~Threads() { Join(); }
  template <typename Body>
  void Add(Body body) {
    threads_.emplace_back([this, body] {
      while (!stop_) body();
    });
  }
  void Join() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
};

TEST(ShardedMutexTest, TheWholeExcludesShardsAndEachShardItsOwn) {
  ShardedMutex sut(kShards);
  std::array<uint64_t, kShards> of_shard{};  // each under its shard, all under the whole
  std::atomic<uint64_t> by_shards = 0;
  uint64_t by_whole = 0;
  constexpr int kTimes = 4000;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 2 * kShards; ++i) {
    threads.emplace_back([&, shard = i % kShards] {
      for (int time = 0; time < kTimes; ++time) {
        const ShardGuard lock(sut, shard);
        ++of_shard[shard];
        by_shards.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      for (int time = 0; time < kTimes / 8; ++time) {
        const MutexLock lock(sut);
        for (uint64_t& count : of_shard) ++count;
        ++by_whole;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  uint64_t sum = 0;
  for (const uint64_t count : of_shard) sum += count;
  EXPECT_EQ(sum, by_shards + kShards * by_whole);
  EXPECT_EQ(by_shards, 2 * kShards * kTimes);
}

TEST(ShardedMutexTest, ShardsAreHeldAtOnce) {
  ShardedMutex sut(2);
  const ShardGuard first(sut, 0);
  bool second = false;
  std::thread other([&] {
    const ShardGuard lock(sut, 1);  // would never come if it waited for the first
    second = true;
  });
  other.join();
  EXPECT_TRUE(second);
}

TEST(ShardedMutexTest, WhoWantsTheWholeGetsItBesideBusyShards) {
  ShardedMutex sut(kShards);
  Threads busy;
  for (size_t i = 0; i < 2 * kShards; ++i) {
    busy.Add([&, shard = i % kShards] { const ShardGuard lock(sut, shard); });
  }
  for (int time = 0; time < 200; ++time) {  // ends
    const MutexLock lock(sut);
  }
}

TEST(ShardedMutexTest, WhoWantsAShardGetsItBesideABusyWhole) {
  ShardedMutex sut(kShards);
  Threads busy;
  for (int i = 0; i < 2; ++i) {
    busy.Add([&] {
      sut.LetOthers();
      const MutexLock lock(sut);
    });
  }
  for (int time = 0; time < 200; ++time) {  // ends
    const ShardGuard lock(sut, static_cast<size_t>(time) % kShards);
  }
}

TEST(ShardedMutexTest, WaitingForAConditionLetsShardsAndTheWholeIn) {
  ShardedMutex sut(kShards);
  CondVar changed;
  bool asked = false, answered = false;  // under the whole
  std::thread waiting([&] {
    const MutexLock lock(sut);
    asked = true;
    while (!answered) sut.Wait(changed);
  });
  for (bool done = false; !done;) {
    const ShardGuard shard(sut, kShards - 1);
    done = asked;
  }
  {
    const MutexLock lock(sut);
    answered = true;
    changed.NotifyAll();
  }
  waiting.join();
  const MutexLock lock(sut);
  EXPECT_FALSE(sut.WaitUntil(changed, std::chrono::steady_clock::now()));
  EXPECT_TRUE(answered);
}

TEST(ShardedMutexTest, CountsWhoHadToWait) {
  ShardedMutex sut(1);
  EXPECT_EQ(sut.shard_waits().times, 0U);
  std::thread other;
  {
    const MutexLock lock(sut);
    other = std::thread([&] { const ShardGuard shard(sut, 0); });
    std::this_thread::yield();
  }
  other.join();
  EXPECT_LE(sut.shard_waits().times, 1U);  // it may have come late
  EXPECT_EQ(sut.whole_waits().times, 0U);
}

}  // namespace
}  // namespace kvasir
