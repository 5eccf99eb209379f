// The two segments of a session: made, sealed, mapped by the daemon, handed to the engine.
#ifndef KVASIR_DAEMON_SHM_SEGMENT_H_
#define KVASIR_DAEMON_SHM_SEGMENT_H_

#include <cstdint>
#include <string>

#include <absl/status/statusor.h>

#include "base/mapped_region.h"
#include "base/posix.h"

namespace kvasir {

// A memfd of fixed size, mapped here. Only its owner's uid can open it by name.
struct Segment {
  UniqueFd fd;
  MappedRegion map;

  // Zero-filled; sealed against resizing and further seals. Pages are touched on first use.
  static absl::StatusOr<Segment> Create(const std::string& name, uint64_t bytes);
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_SEGMENT_H_
