// Fills new kept groups: the copy from recent to kept, run by a worker while the engine computes.
#ifndef KVASIR_DAEMON_CORE_COPY_JOB_H_
#define KVASIR_DAEMON_CORE_COPY_JOB_H_

#include <cstdint>
#include <vector>

#include "daemon/core/kept_list.h"
#include "kernels/gather.h"

namespace kvasir::core {

// How the rows of a lane are copied: K rows turned, for in-cache positions, or head by head.
struct LaneRope {
  bool rotate = false;
  bool heads_keep_own = false;             // a column for each kv head
  std::vector<kernels::RopeShape> layers;  // in lane order
};

// Copies rows, or encodes them into records or their values one by one, and writes the trailer.
// Reads every source byte once, and trusts none: an engine that writes meanwhile gets its own mixed
// rows. Thread-safe for distinct groups.
void FillGroup(const GroupFill& fill, const LaneRope& rope);

// The trailer alone: rows and tokens of the group's slots.
void WriteTrailer(const KeptGroup& group);
// Whether it has the one that WriteTrailer() would write.
bool HasTrailer(const KeptGroup& group);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_COPY_JOB_H_
