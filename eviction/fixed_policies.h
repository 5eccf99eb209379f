// The textbook policies, as options and as the yardstick. Beside what they know of single keys ARC
// alone learns something: the room of each of its lists. W-TinyLFU's sketch is of keys, which are
// others after a restart of whoever holds the secret that they are made with.
//
// `pin` as in blockwise_policy.h. REQUIRES: capacity in 1..kCapacityMax.
#ifndef KVASIR_EVICTION_FIXED_POLICIES_H_
#define KVASIR_EVICTION_FIXED_POLICIES_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "eviction/eviction_policy.h"

namespace kvasir::eviction {

// Least recently used.
std::unique_ptr<EvictionPolicy> MakeLru(uint32_t capacity, bool pin);

// Least frequently used while resident, the oldest first among equals.
std::unique_ptr<EvictionPolicy> MakeLfu(uint32_t capacity, bool pin);

// Two lists and their ghosts share the room by what the ghosts' returns say. Source: Megiddo and
// Modha, "ARC: A self-tuning, low overhead replacement cache", FAST 2003.
std::unique_ptr<EvictionPolicy> MakeArc(uint32_t capacity, bool pin);

// A small FIFO of a tenth in front of a main one that gives second chances, and ghosts. Source:
// Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
std::unique_ptr<EvictionPolicy> MakeS3Fifo(uint32_t capacity, bool pin);

// A window of 1%, then admission to a segmented LRU (80% protected) by a count of recent uses.
// Source: Einziger, Friedman and Manes, "TinyLFU: a highly efficient cache admission policy", ACM
// Transactions on Storage 13 (2017).
std::unique_ptr<EvictionPolicy> MakeWTinyLfu(uint32_t capacity, bool pin);

inline constexpr uint32_t kNeverUsed = std::numeric_limits<uint32_t>::max();

// For each block access of a trace, in order, the number of the next access to the same block;
// kNeverUsed where there is none.
std::vector<uint32_t> NextUses(std::span<const ChainKey> accesses);

// The one that is used latest goes, or is not stored at all: no policy hits more. It needs the
// future, `next_uses` of the accesses that Begin() will make: for comparison only. Source: Belady,
// "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5 (1966).
std::unique_ptr<EvictionPolicy> MakeBelady(uint32_t capacity, std::vector<uint32_t> next_uses,
                                           bool pin);

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_FIXED_POLICIES_H_
