// The cache of StreamingLLM as its authors wrote it: the first tokens and the newest, with room
// made before or after tokens come.
//
// StreamingLlmPolicy shows at each row what this cache holds after Append(1) and Evict(). Source:
// arXiv 2309.17453, streaming_llm/kv_cache.py:40-118. Copyable value; every call is O(1).
#ifndef KVASIR_POLICIES_SELECTION_START_RECENT_CACHE_H_
#define KVASIR_POLICIES_SELECTION_START_RECENT_CACHE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace kvasir {

class StartRecentCache {
 public:
  StartRecentCache(uint64_t start_size, uint64_t recent_size)
      : start_size_(start_size), recent_size_(recent_size), tail_first_(start_size) {}

  void Append(uint64_t rows) { rows_ += rows; }

  // Above start + recent rows: the start and the newest `recent` stay.
  void Evict() { EvictForSpace(0); }

  // Where `coming` rows more would be above start + recent: the start and the newest recent -
  // coming stay. Where coming > recent the cache exceeds its size once they are appended.
  void EvictForSpace(uint64_t coming) {
    const uint64_t full = start_size_ + recent_size_;
    if (coming <= full && size() <= full - coming) return;
    tail_first_ = std::max(tail_first_,
                           rows_ - std::min(recent_size_ - std::min(coming, recent_size_), rows_));
  }

  uint64_t size() const { return std::min(start_size_, rows_) + TailRows(); }

  // Row numbers held, ascending. O(size()).
  std::vector<uint64_t> Rows() const {
    std::vector<uint64_t> held;
    for (uint64_t row = 0; row < std::min(start_size_, rows_); ++row) held.push_back(row);
    for (uint64_t row = rows_ - TailRows(); row < rows_; ++row) held.push_back(row);
    return held;
  }

 private:
  uint64_t TailRows() const { return rows_ - std::min(rows_, tail_first_); }

  uint64_t start_size_;
  uint64_t recent_size_;
  uint64_t rows_ = 0;        // appended so far
  uint64_t tail_first_ = 0;  // rows from here on are held, and at least start_size
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SELECTION_START_RECENT_CACHE_H_
