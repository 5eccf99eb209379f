#include "daemon/offload/offload_workers.h"

#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/offload/run_offload_job.h"

namespace kvasir {
namespace {

constexpr std::chrono::seconds kLookInterval{1};

}  // namespace

absl::StatusOr<std::unique_ptr<OffloadWorkers>> OffloadWorkers::Start(
    SharedCore& shared, std::span<const std::unique_ptr<DeviceMemory>> devices) {
  std::vector<Lane> lanes;
  for (const std::unique_ptr<DeviceMemory>& memory : devices) {
    for (const device::CopyDirection direction :
         {device::CopyDirection::kToDevice, device::CopyDirection::kToHost}) {
      KVASIR_ASSIGN_OR_RETURN(
          std::unique_ptr<device::OffloadEngine> engine,
          device::OffloadEngine::Create(memory->device(), device::OffloadOptions()));
      lanes.push_back({memory.get(), direction, std::move(engine)});
    }
  }
  return std::unique_ptr<OffloadWorkers>(new OffloadWorkers(shared, std::move(lanes)));
}

OffloadWorkers::OffloadWorkers(SharedCore& shared, std::vector<Lane> lanes)
    : shared_(shared), lanes_(std::move(lanes)) {
  for (Lane& lane : lanes_) threads_.emplace_back([this, &lane] { Loop(lane); });
}

void OffloadWorkers::Loop(Lane& lane) {
  for (;;) {
    std::unique_ptr<core::OffloadJob> job;
    {
      MutexLock lock(shared_.mutex);
      for (;;) {
        if (stopping_) return;
        shared_.core.set_now(SystemClock().Now());
        job = shared_.core.TakeOffloadJob(*lane.memory, lane.direction);
        if (job != nullptr) break;
        // A device fills up while sequences only decode, and nobody says so.
        if (lane.direction == device::CopyDirection::kToHost &&
            lane.memory->pool().counts().charged_bytes > 0) {
          (void)shared_.mutex.WaitUntil(shared_.tier_work, SystemClock().Now() + kLookInterval);
        } else {
          shared_.mutex.Wait(shared_.tier_work);
        }
      }
    }
    RunOffloadJob(*job, *lane.memory, *lane.engine, stopping_);
    if (!job->status.ok() && job->status.code() != absl::StatusCode::kCancelled) {
      spdlog::warn("rows were not moved: pool={} tenant={} to={} reason={}", lane.memory->name(),
                   job->tenant->config.name, job->to->place(), MessageOf(job->status));
    }
    MutexLock lock(shared_.mutex);
    shared_.core.set_now(SystemClock().Now());
    shared_.core.FinishOffloadJob(std::move(job));
    shared_.progress.NotifyAll();
    shared_.tier_work.NotifyAll();
  }
}

void OffloadWorkers::Stop() {
  if (threads_.empty()) return;
  {
    MutexLock lock(shared_.mutex);
    stopping_ = true;
    shared_.tier_work.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace kvasir
