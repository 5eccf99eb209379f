// TableArena: places for tables in the arena of a D segment. First fit over a map of free ranges.
#ifndef KVASIR_DAEMON_CORE_TABLE_ARENA_H_
#define KVASIR_DAEMON_CORE_TABLE_ARENA_H_

#include <cstdint>
#include <map>

#include <absl/status/statusor.h>

namespace kvasir::core {

// Not thread-safe. Offsets are relative to the segment; sizes are rounded up to shm::kArenaUnit.
class TableArena {
 public:
  TableArena(uint64_t offset, uint64_t bytes) { free_.emplace(offset, bytes); }

  // Errors: kResourceExhausted naming limits.table_arena_bytes. Cost: O(free ranges).
  absl::StatusOr<uint64_t> Allocate(uint64_t bytes);
  // REQUIRES: Allocate(bytes) returned `offset` and it is not free.
  void Free(uint64_t offset, uint64_t bytes);

  uint64_t free_bytes() const;

 private:
  std::map<uint64_t, uint64_t> free_;  // offset -> bytes; neighbours are merged
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TABLE_ARENA_H_
