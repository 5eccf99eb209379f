#include "daemon/core/table_arena.h"

#include <algorithm>
#include <iterator>

#include "base/bytes.h"
#include "base/error.h"
#include "proto/shm/layout.h"

namespace kvasir::core {
namespace {

uint64_t Rounded(uint64_t bytes) { return RoundUp(std::max<uint64_t>(bytes, 1), shm::kArenaUnit); }

}  // namespace

absl::StatusOr<uint64_t> TableArena::Allocate(uint64_t bytes) {
  const uint64_t wanted = Rounded(bytes);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < wanted) continue;
    const auto [offset, size] = *it;
    free_.erase(it);
    if (size > wanted) free_.emplace(offset + wanted, size - wanted);
    return offset;
  }
  return ResourceExhausted(
      "no room for a block table in the session's segment (limits.table_arena_bytes): "
      "wanted_bytes={} free_bytes={}",
      wanted, free_bytes());
}

void TableArena::Free(uint64_t offset, uint64_t bytes) {
  auto [it, inserted] = free_.emplace(offset, Rounded(bytes));
  const auto next = std::next(it);
  if (next != free_.end() && it->first + it->second == next->first) {
    it->second += next->second;
    free_.erase(next);
  }
  if (it != free_.begin()) {
    const auto previous = std::prev(it);
    if (previous->first + previous->second == it->first) {
      previous->second += it->second;
      free_.erase(it);
    }
  }
}

uint64_t TableArena::free_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [offset, size] : free_) bytes += size;
  return bytes;
}

}  // namespace kvasir::core
