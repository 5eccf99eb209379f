// Workers: threads that run compaction copies off the engines' path, and one that keeps the pool's
// stock of touched extents filled.
#ifndef KVASIR_DAEMON_WORKERS_H_
#define KVASIR_DAEMON_WORKERS_H_

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "allocator/host_pool.h"
#include "daemon/shared_core.h"

namespace kvasir {

// Thread-safe. Joins its threads when destroyed.
class Workers {
 public:
  // `shared` and `pool` must outlive it.
  Workers(SharedCore& shared, HostPool& pool, uint32_t copy_threads);
  ~Workers() { Stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Lets the copies under way finish and joins the threads. The object stays usable as a deaf one.
  void Stop();

  // Looks at the pool's stock soon. Called when extents were taken or given back.
  void WakeRefill();

 private:
  void CopyLoop();
  // Under the tenant's share, or where that is not enough under the whole lock.
  void Finish(std::unique_ptr<core::SequenceJob> job);
  void PutBack(std::unique_ptr<core::SequenceJob> job);
  void RefillLoop();

  SharedCore& shared_;
  HostPool& pool_;
  Mutex refill_mutex_;
  CondVar refill_;
  bool refill_wanted_ ABSL_GUARDED_BY(refill_mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(refill_mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_WORKERS_H_
