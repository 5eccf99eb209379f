// IndexEntry: what the disk tier's index says of a block, and its bytes. Pure functions.
//
// A value: payload bytes u64, count of runs u64, runs (first u32, count u32), XXH3-64 of key and
// all before it. Little-endian.
#ifndef KVASIR_ALLOCATOR_TIER_INDEX_ENTRY_H_
#define KVASIR_ALLOCATOR_TIER_INDEX_ENTRY_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "allocator/tier/space_map.h"
#include "allocator/tier/tier_key.h"

namespace kvasir {

struct IndexEntry {
  TierKey key;
  uint64_t payload_bytes = 0;
  UnitRuns runs;
};

std::string EncodeIndexEntry(const IndexEntry& entry);

// False for what is damaged; then `entry` has any value. Whether there are such units, and whether
// they are free, is for whoever takes them.
bool DecodeIndexEntry(std::string_view key, std::string_view value, IndexEntry* entry);

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_INDEX_ENTRY_H_
