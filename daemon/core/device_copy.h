// Fills new kept groups whose rows lie in the memory of a device: copies by index on a stream of
// the daemon's. Keys that are turned on the way go through the processor.
#ifndef KVASIR_DAEMON_CORE_DEVICE_COPY_H_
#define KVASIR_DAEMON_CORE_DEVICE_COPY_H_

#include <absl/status/status.h>

#include "daemon/core/copy_job.h"
#include "daemon/core/kept_list.h"

namespace kvasir::core {

// Copies the rows, waits until they are there, and writes the trailer: the bytes that FillGroup()
// would make. Rows that lie next to each other on both sides are one piece. REQUIRES: the group and
// all sources lie on one device, as written (Sequence::CheckDevice()). Errors:
// DeviceMemory::Copy()'s and Borrow()'s; what is in the group then is undefined. Cost: a batch of
// copies; where keys are turned, they there and back, and a second batch. Thread-safe for distinct
// groups.
absl::Status FillOnDevice(const GroupFill& fill, const LaneRope& rope);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_DEVICE_COPY_H_
