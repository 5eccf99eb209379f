// How many of the marked places lie behind a place: a Fenwick tree over 0..places-1.
//
// Thread-compatible. Cost: O(log places) a call; 4 bytes a place. Source: Fenwick, "A new data
// structure for cumulative frequency tables", Software: Practice and Experience 24 (1994).
#ifndef KVASIR_EVICTION_RECENCY_RANKS_H_
#define KVASIR_EVICTION_RECENCY_RANKS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace kvasir::eviction {

class RecencyRanks {
 public:
  explicit RecencyRanks(uint32_t places) : sums_(size_t{places} + 1) {}

  // REQUIRES: place < places, not marked.
  void Mark(uint32_t place) {
    ++marked_;
    for (size_t at = size_t{place} + 1; at < sums_.size(); at += at & -at) ++sums_[at];
  }
  // REQUIRES: marked.
  void Unmark(uint32_t place) {
    --marked_;
    for (size_t at = size_t{place} + 1; at < sums_.size(); at += at & -at) --sums_[at];
  }
  uint32_t marked() const { return marked_; }
  // Marked places above `place`.
  uint32_t Behind(uint32_t place) const {
    uint32_t before = 0;  // and itself
    for (size_t at = size_t{place} + 1; at > 0; at &= at - 1) before += sums_[at];
    return marked_ - before;
  }
  void Clear() {
    std::fill(sums_.begin(), sums_.end(), 0);
    marked_ = 0;
  }
  uint64_t MetadataBytes() const { return sums_.capacity() * sizeof(uint32_t); }

 private:
  std::vector<uint32_t> sums_;  // [i]: marked places of (i - lowest bit of i, i], counted from 1
  uint32_t marked_ = 0;
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_RECENCY_RANKS_H_
