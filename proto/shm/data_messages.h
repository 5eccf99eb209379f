// What comes over the data socket, and the header that the welcome points at, checked: pure
// functions from bytes to values. Nothing of a message is believed before these have seen it.
#ifndef KVASIR_PROTO_SHM_DATA_MESSAGES_H_
#define KVASIR_PROTO_SHM_DATA_MESSAGES_H_

#include <cstddef>
#include <span>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "proto/shm/layout.h"

namespace kvasir::shm {

// One message as it was received.
struct DataMessage {
  std::span<const std::byte> bytes;
  bool truncated = false;
  size_t fds = 0;
};

// The daemon's side. Errors: kInvalidArgument when it is no hello, kFailedPrecondition when the two
// have no version in common.
absl::Status CheckHello(const DataMessage& message);

// The engine's side. Errors: the daemon's own, when it refuses; kUnavailable for an empty message
// (it has hung up), kDataLoss for what is no answer. A refusal is an error whatever its code says.
absl::StatusOr<Welcome> ParseAnswer(const DataMessage& message);

// Errors: kUnavailable for an empty message, kDataLoss for what is no notice of an extent.
absl::StatusOr<ExtentNotice> ParseExtentNotice(const DataMessage& message);

// A message that is to be read as such a notice.
bool IsDeviceExtentNotice(const DataMessage& message);
// Errors: kDataLoss for what is no notice of a pair, or one whose halves do not hold equally many
// groups of whole pages.
absl::StatusOr<DeviceExtentNotice> ParseDeviceExtentNotice(const DataMessage& message);

// Whether boards, desks and arena lie inside the segments of the welcome, in this order, and
// aligned. The daemon does not change its header after the hand-over but for session_state.
// Errors: kDataLoss when it does not fit the welcome, kFailedPrecondition for another layout.
absl::Status CheckDaemonHeader(const DaemonHeader& header, const Welcome& welcome);

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_DATA_MESSAGES_H_
