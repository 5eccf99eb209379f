// What the process before has left with the service manager: extents, and the index of what lies
// in them.
#ifndef KVASIR_DAEMON_HANDOVER_TAKE_OVER_H_
#define KVASIR_DAEMON_HANDOVER_TAKE_OVER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon/core/kv_core.h"
#include "daemon/handover/fd_store.h"
#include "daemon/handover/handover_index.h"

namespace kvasir {

std::string IndexName(uint64_t epoch);
std::string ExtentName(uint64_t id);

struct TakenOver {
  std::unique_ptr<HandoverIndex> index;  // goes on; null: there is none to go on with
  std::map<uint64_t, uint64_t> records;  // places in the index, by the number that the core knows
  core::Adoption adoption;               // its prefixes' records are numbers
  std::set<uint64_t> extents;            // ids of those that the manager keeps
  uint64_t extent_bytes = 0;             // of them
  uint64_t next_extent_id = 1;           // above those
};

// What the bytes of an index mean beside its own format: other numbers are other layouts.
uint64_t HandoverLayout();

// Opens what was handed back, and has the manager forget what is of no use: other names, a second
// index, extents that no record names. `secret`: the one that keys must be made with; nothing: the
// index's own. An index that is damaged, of another version or under another secret is dropped with
// a line in the log; nothing of it is served. Touches no page of an extent.
TakenOver TakeOver(std::vector<NamedFd> fds, const std::optional<ChainHasher::Secret>& secret,
                   FdStore& store);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_HANDOVER_TAKE_OVER_H_
