// What a thread does with an offload job between TakeOffloadJob() and FinishOffloadJob().
//
// Thread-safe for distinct jobs and engines; blocks until the rows are there, or no copy of the job
// touches them any more. Cost: the copies; the first time that an extent of host memory is used the
// time to pin it.
#ifndef KVASIR_DAEMON_OFFLOAD_RUN_OFFLOAD_JOB_H_
#define KVASIR_DAEMON_OFFLOAD_RUN_OFFLOAD_JOB_H_

#include <atomic>

#include "allocator/device_memory.h"
#include "daemon/core/offload_job.h"
#include "device/offload/offload_engine.h"

namespace kvasir {

// Fills in the job's answer; kCancelled once it is `stopping`. `engine` is of `memory`'s device,
// and nobody else uses it meanwhile.
void RunOffloadJob(core::OffloadJob& job, DeviceMemory& memory, device::OffloadEngine& engine,
                   const std::atomic<bool>& stopping);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_OFFLOAD_RUN_OFFLOAD_JOB_H_
