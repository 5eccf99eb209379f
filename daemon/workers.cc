#include "daemon/workers.h"

#include <memory>
#include <utility>

namespace kvasir {

Workers::Workers(SharedCore& shared, HostPool& pool, uint32_t copy_threads)
    : shared_(shared), pool_(pool) {
  for (uint32_t i = 0; i < copy_threads; ++i) threads_.emplace_back([this] { CopyLoop(); });
  threads_.emplace_back([this] { RefillLoop(); });
}

void Workers::Stop() {
  {
    MutexLock lock(shared_.mutex);
    shared_.stopping = true;
    shared_.work.NotifyAll();
    shared_.progress.NotifyAll();
  }
  {
    MutexLock lock(refill_mutex_);
    stopping_ = true;
    refill_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Workers::CopyLoop() {
  std::unique_ptr<core::SequenceJob> job;
  for (;;) {
    {
      MutexLock lock(shared_.mutex);
      while (job == nullptr && !shared_.stopping && (job = shared_.core.TakeJob()) == nullptr) {
        shared_.mutex.Wait(shared_.work);
      }
      if (job == nullptr) return;
    }
    const bool more = core::RunPart(*job);
    MutexLock lock(shared_.mutex);
    if (!more) {
      shared_.core.FinishJob(std::move(job));
    } else if (shared_.stopping || !shared_.core.HasWork()) {
      continue;
    } else if (shared_.core.PutBackJob(std::move(job))) {
      // Between parts others have their turn, so that a long job of one tenant holds up nobody.
      job = shared_.core.TakeJob();
      continue;
    }
    shared_.progress.NotifyAll();
    if (shared_.wake_data_server) shared_.wake_data_server();
  }
}

void Workers::WakeRefill() {
  if (!pool_.WantsRefill()) return;  // a call that took no extent wakes nobody
  MutexLock lock(refill_mutex_);
  refill_wanted_ = true;
  refill_.NotifyOne();
}

void Workers::RefillLoop() {
  for (;;) {
    {
      MutexLock lock(refill_mutex_);
      while (!refill_wanted_ && !stopping_) refill_.Wait(refill_mutex_);
      if (stopping_) return;
      refill_wanted_ = false;
    }
    while (pool_.RefillOnce()) {
      MutexLock lock(refill_mutex_);
      if (stopping_) return;
    }
  }
}

}  // namespace kvasir
