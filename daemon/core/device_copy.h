// Fills new kept groups whose rows lie in the memory of a device: the device gathers them, and
// turns keys on the way, on a stream of the daemon's.
#ifndef KVASIR_DAEMON_CORE_DEVICE_COPY_H_
#define KVASIR_DAEMON_CORE_DEVICE_COPY_H_

#include <absl/status/status.h>

#include "daemon/core/copy_job.h"
#include "daemon/core/kept_list.h"

namespace kvasir::core {

// Gathers the rows, waits until they are there, and writes the trailer: the bytes that FillGroup()
// would make. REQUIRES: the group and all sources lie on one device, as written
// (Sequence::CheckDevice()). Errors: DeviceMemory::Gather()'s; what is in the group then is
// undefined. Cost: the factors of as many turns as there are different ones; of the device one
// gather for all layers whose rows have one size and, where keys are turned, are turned alike.
// Thread-safe for distinct groups.
absl::Status FillOnDevice(const GroupFill& fill, const LaneRope& rope);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_DEVICE_COPY_H_
