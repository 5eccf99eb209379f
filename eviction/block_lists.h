// Doubly linked lists of blocks by handle: a block is in one list at most. The front is the oldest.
//
// All lists of a policy share one array of links, so moving between lists allocates nothing.
// Thread-compatible. Cost: O(1); the array grows with the handles of the index.
#ifndef KVASIR_EVICTION_BLOCK_LISTS_H_
#define KVASIR_EVICTION_BLOCK_LISTS_H_

#include <cstdint>
#include <vector>

#include "index/block_index.h"

namespace kvasir::eviction {

struct BlockList {
  BlockId front = kNoBlock;
  BlockId back = kNoBlock;
  uint32_t size = 0;
};

class BlockLinks {
 public:
  void PushBack(BlockList& list, BlockId block) {
    if (block >= links_.size()) links_.resize(size_t{block} + 1);
    links_[block] = {list.back, kNoBlock};
    (list.back == kNoBlock ? list.front : links_[list.back].next) = block;
    list.back = block;
    ++list.size;
  }

  // REQUIRES: in `list`.
  void Remove(BlockList& list, BlockId block) {
    const Link link = links_[block];
    (link.previous == kNoBlock ? list.front : links_[link.previous].next) = link.next;
    (link.next == kNoBlock ? list.back : links_[link.next].previous) = link.previous;
    --list.size;
  }

  BlockId NextOf(BlockId block) const { return links_[block].next; }
  uint64_t MetadataBytes() const { return links_.capacity() * sizeof(Link); }

 private:
  struct Link {
    BlockId previous = kNoBlock;
    BlockId next = kNoBlock;
  };
  std::vector<Link> links_;
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_BLOCK_LISTS_H_
