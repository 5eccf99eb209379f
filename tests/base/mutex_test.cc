// Mutex: who locks again and again lets those go first that wait.
#include "base/mutex.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(Mutex, LetOthersWaitsForNobodyWhereNobodyWaits) {
  Mutex mutex;
  mutex.LetOthers(std::chrono::hours(1));
  MutexLock lock(mutex);
}

// Each time that somebody waits when the lock is given back, LetOthers() returns when it has it,
// however long that takes to be scheduled: with an hour to wait, a lost wake-up would be one.
TEST(Mutex, LetOthersReturnsWhenTheOtherHasIt) {
  Mutex mutex;
  std::atomic<int> taken = 0;
  std::atomic<bool> stop = false;
  std::thread other([&] {
    while (!stop) {
      MutexLock lock(mutex);
      ++taken;
    }
  });
  while (taken == 0) std::this_thread::yield();
  for (int i = 0; i < 20'000; ++i) {
    mutex.LetOthers(std::chrono::hours(1));
    MutexLock lock(mutex);
  }
  stop = true;
  other.join();
}

TEST(Mutex, ManyThatLockAndLetOthers) {
  Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5'000; ++i) {
        mutex.LetOthers();
        MutexLock lock(mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 20'000);
}

}  // namespace
}  // namespace kvasir
