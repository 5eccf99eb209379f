// Ids of snapshots as the wire has them: 16 bytes. Pure functions; thread-safe.
#ifndef KVASIR_DAEMON_CONTROL_SNAPSHOT_ID_H_
#define KVASIR_DAEMON_CONTROL_SNAPSHOT_ID_H_

#include <cstring>
#include <optional>
#include <string>

#include <absl/status/statusor.h>

#include "base/error.h"
#include "daemon/core/snapshot.h"

namespace kvasir {

// Errors: kInvalidArgument for bytes that are no id.
inline absl::StatusOr<core::SnapshotId> RequiredSnapshotIdOf(const std::string& bytes) {
  core::SnapshotId id;
  if (bytes.size() != id.bytes.size()) {
    return InvalidArgument("snapshot_id has the wrong size: bytes={} expected={}", bytes.size(),
                           id.bytes.size());
  }
  std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return id;
}

// Nothing where `bytes` is empty.
inline absl::StatusOr<std::optional<core::SnapshotId>> SnapshotIdOf(const std::string& bytes) {
  if (bytes.empty()) return std::nullopt;
  return RequiredSnapshotIdOf(bytes);
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_SNAPSHOT_ID_H_
