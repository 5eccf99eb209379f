// Mutex, MutexLock, CondVar: std::mutex with Clang thread-safety annotations.
//
// Not absl::Mutex: Debian's build of it is not instrumented, so ThreadSanitizer reports races that
// are none. The annotations are checked by the `tsa` preset (clang).
#ifndef KVASIR_BASE_MUTEX_H_
#define KVASIR_BASE_MUTEX_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include <absl/base/thread_annotations.h>

namespace kvasir {

class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    if (!mutex_.try_lock()) LockLater();
  }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) { return mutex_.try_lock(); }
  // For who locks again and again: where somebody waits, lets it go first. The mutex itself is
  // unfair: who has just unlocked it is on a processor, and who is woken is not yet. Sleeps until
  // one that waited has it, for `most` at the longest; a yield instead may give the processor to
  // another process for a whole slice of some milliseconds. Not with the mutex.
  void LetOthers(std::chrono::microseconds most = std::chrono::microseconds(200))
      ABSL_LOCKS_EXCLUDED(this);
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}

 private:
  friend class CondVar;
  void LockLater() ABSL_NO_THREAD_SAFETY_ANALYSIS;

  std::mutex mutex_;
  // How many wait, and how many have waited and got it: hints, without an order.
  std::atomic<uint32_t> waiting_ = 0, came_ = 0;
  std::atomic<uint32_t> letting_ = 0;  // how many sleep on came_
};

// Of a Mutex, or of the whole of a ShardedMutex.
template <typename Lockable>
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Lockable& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Lockable& mutex_;
};
template <typename Lockable>
MutexLock(Lockable&) -> MutexLock<Lockable>;

class CondVar {
 public:
  // Waits until notified or `deadline`; returns false on time-out. Spurious wake-ups happen.
  bool WaitUntil(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool notified = condition_.wait_until(lock, deadline) == std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void Wait(Mutex& mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  void NotifyAll() { condition_.notify_all(); }
  void NotifyOne() { condition_.notify_one(); }

 private:
  std::condition_variable condition_;
};

}  // namespace kvasir

#endif  // KVASIR_BASE_MUTEX_H_
