// JobQueue: jobs of sequences that wait for a worker. Tenants in turn, the oldest job of each.
//
// Thread-safe, with a lock of its own that is a leaf, so that a worker comes for a job and a call
// leaves one without the lock of the core. Cost: a lock; Take() looks at each tenant that has any.
#ifndef KVASIR_DAEMON_CORE_JOB_QUEUE_H_
#define KVASIR_DAEMON_CORE_JOB_QUEUE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {

class JobQueue {
 public:
  JobQueue() = default;
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // Behind those of its tenant (SequenceJob::place). Wakes one who waits.
  void Push(std::unique_ptr<SequenceJob> job) ABSL_LOCKS_EXCLUDED(mutex_);
  // The oldest of the tenant that was served longest ago; null: there is none.
  std::unique_ptr<SequenceJob> Take() ABSL_LOCKS_EXCLUDED(mutex_);
  // Likewise, once there is one. Null: stopped.
  std::unique_ptr<SequenceJob> WaitAndTake() ABSL_LOCKS_EXCLUDED(mutex_);
  // Those that wait here and not at a worker.
  std::vector<std::unique_ptr<SequenceJob>> Remove(
      const std::function<bool(const SequenceJob&)>& which) ABSL_LOCKS_EXCLUDED(mutex_);

  // Without a lock, so that it may be over already.
  bool empty() const { return count_.load(std::memory_order_relaxed) == 0; }
  // Nobody waits any more; what is here stays.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    uint64_t number = 0;  // in the order in which they came
    std::unique_ptr<SequenceJob> job;
  };

  std::unique_ptr<SequenceJob> TakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  CondVar comes_;
  std::map<size_t, std::deque<Entry>> jobs_ ABSL_GUARDED_BY(mutex_);  // by place; none is empty
  std::map<size_t, uint64_t> served_at_ ABSL_GUARDED_BY(mutex_);      // turn, by place
  uint64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<size_t> count_ = 0;
  std::atomic<bool> stopped_ = false;  // changed under the mutex
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_JOB_QUEUE_H_
