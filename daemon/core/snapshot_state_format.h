// What the writer and the reader of a snapshot's state (snapshot_state.h) agree on.
#ifndef KVASIR_DAEMON_CORE_SNAPSHOT_STATE_FORMAT_H_
#define KVASIR_DAEMON_CORE_SNAPSHOT_STATE_FORMAT_H_

#include <cstdint>

#include "base/bytes.h"
#include "base/state_codec.h"

namespace kvasir::core {

// A manifest has room for it beside all else.
inline constexpr StateFormat kSnapshotState{"KVSNAPST", 1, 48 * kMiB, "snapshot", "retention"};

// Rows, and positions of keys, are written in four bytes.
inline constexpr uint64_t kSnapshotRowsMax = uint64_t{1} << 31;

enum class GroupRole : uint32_t {
  kBlock = 0,   // KeptShapes::block
  kSmall = 1,   // KeptShapes::small
  kRecord = 2,  // LaneRecords::geometry
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SNAPSHOT_STATE_FORMAT_H_
