#include "daemon/workers.h"

#include <memory>
#include <utility>

#include "base/thread_slice.h"

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
    shared_.progress.NotifyAll();
  }
  shared_.jobs.Stop();
  {
    MutexLock lock(refill_mutex_);
    stopping_ = true;
    refill_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Workers::CopyLoop() {
  SetThreadSlice(ThreadSlice::kOrdinary);  // engines compute beside it
  while (std::unique_ptr<core::SequenceJob> job = shared_.jobs.WaitAndTake()) {
    while (job != nullptr) {
      if (!core::RunPart(*job)) {
        Finish(std::move(job));
      } else if (!shared_.jobs.stopped() && !shared_.jobs.empty()) {
        // Between parts others have their turn, so that a long job of one tenant holds up nobody.
        PutBack(std::move(job));
        job = shared_.jobs.Take();
      }
    }
  }
}

void Workers::Finish(std::unique_ptr<core::SequenceJob> job) {
  using Finished = core::TenantVerbs::Finished;
  const uint64_t sequence = job->sequence_id;
  Finished finished = Finished::kNot;
  {
    TenantLock share(shared_, job->place);
    finished = share.verbs().FinishJob(job);
  }
  if (finished == Finished::kEntirely) {
    shared_.progress.NotifyAll();
    return;
  }
  {
    MutexLock lock(shared_.mutex);
    if (finished == Finished::kNot) {
      shared_.core.FinishJob(std::move(job));
    } else {
      shared_.core.ContinueAfterJob(sequence);
    }
    shared_.progress.NotifyAll();
  }
  if (shared_.wake_data_server) shared_.wake_data_server();  // the session may have gone with it
}

void Workers::PutBack(std::unique_ptr<core::SequenceJob> job) {
  {
    TenantLock share(shared_, job->place);
    if (share.verbs().PutBackJob(job)) return;
  }
  {
    MutexLock lock(shared_.mutex);
    if (shared_.core.PutBackJob(std::move(job))) return;
    shared_.progress.NotifyAll();
  }
  if (shared_.wake_data_server) shared_.wake_data_server();
}

void Workers::WakeRefill() {
  if (!pool_.WantsRefill()) return;  // a call that took no extent wakes nobody
  MutexLock lock(refill_mutex_);
  refill_wanted_ = true;
  refill_.NotifyOne();
}

void Workers::RefillLoop() {
  SetThreadSlice(ThreadSlice::kOrdinary);
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
