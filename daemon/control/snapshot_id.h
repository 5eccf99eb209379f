// Ids of snapshots as the wire has them: 16 bytes. Pure functions; thread-safe.
#ifndef KVASIR_DAEMON_CONTROL_SNAPSHOT_ID_H_
#define KVASIR_DAEMON_CONTROL_SNAPSHOT_ID_H_

#include <optional>
#include <string>

#include <absl/status/statusor.h>

#include "base/status_macros.h"
#include "daemon/control/wire_id.h"
#include "daemon/core/snapshot.h"

namespace kvasir {

// Errors: kInvalidArgument for bytes that are no id.
inline absl::StatusOr<core::SnapshotId> RequiredSnapshotIdOf(const std::string& bytes) {
  KVASIR_ASSIGN_OR_RETURN(const auto id, SixteenBytesOf("snapshot_id", bytes));
  return core::SnapshotId{id};
}

// Nothing where `bytes` is empty.
inline absl::StatusOr<std::optional<core::SnapshotId>> SnapshotIdOf(const std::string& bytes) {
  if (bytes.empty()) return std::nullopt;
  return RequiredSnapshotIdOf(bytes);
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_SNAPSHOT_ID_H_
