// How often a key was used lately, about: a count-min sketch of four-bit counters that are halved
// once in `sample` uses.
//
// Estimates are never below the true count (up to 15, and but for rounding in halving). 16 bytes
// for each block of capacity, rounded up to a power of two. Thread-compatible. Cost: four cache
// lines a call; halving passes over all counters. Source: Cormode and Muthukrishnan, "An improved
// data stream summary: the count-min sketch", 2005; aging as in TinyLFU.
#ifndef KVASIR_EVICTION_FREQUENCY_SKETCH_H_
#define KVASIR_EVICTION_FREQUENCY_SKETCH_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "index/chain_key.h"

namespace kvasir::eviction {

class FrequencySketch {
 public:
  explicit FrequencySketch(uint32_t capacity)
      : sample_(uint64_t{10} * capacity),
        mask_(std::bit_ceil(uint64_t{kWidth} * capacity) - 1),
        counters_((mask_ + 1) * kRows / 2) {}

  void Add(const ChainKey& key) {
    // Only the lowest counters rise: the others have been raised by other keys already.
    const uint32_t least = Estimate(key);
    for (uint64_t row = 0; row < kRows && least < kCountMax; ++row) {
      const uint64_t at = IndexOf(key, row);
      if (Get(at) == least) {
        counters_[at / 2] = static_cast<uint8_t>(counters_[at / 2] + (1U << at % 2 * 4));
      }
    }
    if (++uses_ >= sample_) {
      uses_ /= 2;
      for (uint8_t& pair : counters_) pair = pair >> 1 & 0x77;
    }
  }

  uint32_t Estimate(const ChainKey& key) const {
    uint32_t least = kCountMax;
    for (uint64_t row = 0; row < kRows; ++row) least = std::min(least, Get(IndexOf(key, row)));
    return least;
  }

  uint64_t MetadataBytes() const { return counters_.capacity(); }

 private:
  static constexpr uint32_t kRows = 4;
  static constexpr uint32_t kWidth = 32;  // counters of a row for each block of capacity
  static constexpr uint32_t kCountMax = 15;

  // Keys are uniform already; an odd step of their own makes the rows' places differ.
  uint64_t IndexOf(const ChainKey& key, uint64_t row) const {
    return row * (mask_ + 1) + ((key.high + row * (key.low >> 16 | 1)) & mask_);
  }
  uint32_t Get(uint64_t at) const { return counters_[at / 2] >> at % 2 * 4 & 15U; }

  uint64_t sample_;
  uint64_t mask_;
  uint64_t uses_ = 0;
  std::vector<uint8_t> counters_;  // two in a byte
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_FREQUENCY_SKETCH_H_
