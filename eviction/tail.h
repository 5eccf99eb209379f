// A tail: the run of blocks of one chain that one request touched last, one path, contiguous.
//
// Blocks are filed under tails, so a request costs a few tails and not one entry for each block. A
// later request takes blocks from a tail's shallow end, eviction takes them from its tip, and the
// ghosts lie below the tip. Plain records by handle; all links between them are handles.
#ifndef KVASIR_EVICTION_TAIL_H_
#define KVASIR_EVICTION_TAIL_H_

#include <cstdint>

#include "eviction/hazard_statistics.h"
#include "index/block_index.h"
#include "index/slab.h"

namespace kvasir::eviction {

using TailId = uint32_t;
inline constexpr TailId kNoTail = kNoHandle;

// The part of a request that a tail is. The values are part of saved states.
enum TailType : uint8_t {
  kReturning = 0,  // known before
  kNew = 1,        // made by the request
  kTrunk = 2,      // shared by many: a system prompt
  kPartial = 3,    // the last block, where it is not full
};
inline constexpr uint8_t kTrunkLevel = 19;
inline constexpr uint32_t kLevels = 20;

enum class TailList : uint8_t { kNone, kDead, kOld, kCell };

struct HeapNode {
  TailId child = kNoTail;
  TailId next = kNoTail;      // sibling
  TailId previous = kNoTail;  // sibling, or the parent of its first child
};

struct Tail {
  int64_t idle_from = 0;    // microseconds, as all times
  int64_t served_at = 0;    // when the request came
  double order_key = 0;     // place in its list
  uint64_t serial = 0;      // never used again: tells a tail from the next one with its handle
  BlockId deep = kNoBlock;  // deepest known block
  BlockId tip = kNoBlock;   // deepest resident one, where there is one
  uint32_t known = 0;       // blocks
  uint32_t resident = 0;
  uint32_t size = 0;    // blocks that it ever had
  uint32_t tokens = 0;  // of its request, answer included
  HeapNode listed;
  HeapNode timer;
  TailId order_previous = kNoTail;  // queue by creation
  TailId order_next = kNoTail;
  TailFeatures features;
  uint8_t type = kReturning;
  uint8_t gap = 0;  // before its request, as a feature
  uint8_t level = 0;
  uint8_t bucket = 0;
  TailList list = TailList::kNone;
  bool running = false;    // its sequence has not completed
  bool forgotten = false;  // leaves no ghosts; not in the queue
  bool live = false;
};

using Tails = Slab<Tail, &Tail::order_next>;

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_TAIL_H_
