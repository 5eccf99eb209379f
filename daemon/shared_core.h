// SharedCore: the one lock around KvCore, and the conditions that threads wait for.
#ifndef KVASIR_DAEMON_SHARED_CORE_H_
#define KVASIR_DAEMON_SHARED_CORE_H_

#include <sys/eventfd.h>

#include <atomic>
#include <functional>

#include "base/clock.h"
#include "base/mutex.h"
#include "daemon/core/kv_core.h"

namespace kvasir {

// `mutex` is the daemon's outermost lock; under it only HostPool's leaf lock is taken. No system
// call that a peer could block is made under it.
// What waits for progress: threads, and the ring server's, which sleeps in epoll.
class Progress {
 public:
  bool WaitUntil(Mutex& mutex, Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return condition_.WaitUntil(mutex, deadline);
  }
  void Wait(Mutex& mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { condition_.Wait(mutex); }
  void NotifyAll() {
    condition_.NotifyAll();
    if (watched_) (void)::eventfd_write(event_, 1);
  }
  // `event` is an eventfd that NotifyAll() writes to while somebody watches. Under the mutex.
  void set_event(int event) { event_ = event; }
  void set_watched(bool watched) { watched_ = watched && event_ >= 0; }

 private:
  CondVar condition_;
  int event_ = -1;
  std::atomic<bool> watched_ = false;
};

struct SharedCore {
  SharedCore(core::CoreConfig config, HostPool& pool) : core(std::move(config), pool) {}

  Mutex mutex;
  core::KvCore core ABSL_GUARDED_BY(mutex);
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  CondVar work;       // a copy job waits, or stopping
  CondVar tier_work;  // there may be work for tiers
  Progress progress;  // a job is finished, a session has ended, or stopping

  // Wakes the data server's thread, which takes leave of sessions that the core has ended. Set
  // once, before threads start.
  std::function<void()> wake_data_server;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHARED_CORE_H_
