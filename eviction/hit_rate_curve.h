// HitRateCurve: which share of the chunks that are asked for an LRU cache of any size would have
// had, learned online from the traffic alone, whatever the real cache holds.
//
// A prompt is asked for as a whole: what is hit is judged before anything of it is touched, and its
// chunks are touched from the last to the first. So a chunk is never forgotten before what follows
// it, and the hits of every size are leading chunks: those of a prefix cache. A chunk hits at all
// sizes from its stack distance on: different chunks that were touched since it was.
//
// Distances are estimated as SHARDS does: of all keys one in 2^k is followed, by its own bits, and
// stands for 2^k of them. k rises by one whenever more than `samples_max` are followed. Keys are
// outputs of a keyed hash, so their bits choose at random. The chunks asked for are counted
// exactly; what is estimated is how many of them miss. Chunks that lie deeper than `chunks_max` are
// forgotten, so that k follows the sizes of interest and not the age of the daemon. Every
// `asked_half` chunks the past counts half.
//
// Error: none while k is 0, which is so up to samples_max different chunks, but the width of a
// bucket, a sixteenth of the size. Else sampling's, about 1 / sqrt(samples_max): less than 0.03
// with 1,024 samples on the trace of tests/data, 0.003 with 8,192 on an hour of chats
// (docs/eviction.md).
//
// Thread-compatible. Cost: a comparison for each chunk; for each that is followed a look-up and
// O(log samples_max), some 100 ns. Memory: 4 KiB, and from the first chunk on at most 66 bytes for
// each of samples_max: 545 KB by default, however much is asked for. Source: Waldspurger, Park,
// Garthwaite and Ahmad, "Efficient MRC construction with SHARDS", FAST 2015 (fixed size, with its
// adjustment); Mattson et al., "Evaluation techniques for storage hierarchies", 1970.
#ifndef KVASIR_EVICTION_HIT_RATE_CURVE_H_
#define KVASIR_EVICTION_HIT_RATE_CURVE_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "eviction/recency_ranks.h"
#include "index/chain_key.h"

namespace kvasir::eviction {

inline constexpr uint64_t kCurveChunksMax = uint64_t{1} << 32;

class HitRateCurve {
 public:
  struct Options {
    uint32_t samples_max = 8192;
    uint64_t chunks_max = kCurveChunksMax;    // sizes above are no matter
    uint64_t asked_half = uint64_t{1} << 24;  // 2^28 tokens
  };

  // REQUIRES: samples_max in 16..2^20, chunks_max in 1..kCurveChunksMax, asked_half >= 1.
  explicit HitRateCurve(const Options& options);

  // A prompt was asked with: its chunks from the first on.
  void Ask(std::span<const ChainKey> chain);
  // A chain was stored that nobody has asked for, such as an answer: it would lie in the cache.
  void Store(std::span<const ChainKey> chain);

  // Of an LRU cache of so many chunks; 0 before anything was asked for.
  double HitRatio(uint64_t chunks) const;

  // Chunks asked for; the past counts less.
  double asked() const { return asked_; }
  uint32_t samples() const { return ranks_.marked(); }
  // One chunk in so many is followed.
  uint64_t stands_for() const { return uint64_t{1} << shift_; }

  // Forgets everything, and from now on follows chunks as deep as that.
  void Clear(uint64_t chunks_max);

  uint64_t chunks_max() const { return chunks_max_; }
  uint64_t MetadataBytes() const;

 private:
  // Sizes to 15 one each, then sixteen for each doubling.
  static constexpr uint32_t kSteps = 16;
  static constexpr uint32_t kBuckets = 30 * kSteps;

  static uint32_t BucketOf(uint64_t chunks);
  static uint64_t FirstOf(uint32_t bucket);

  bool Follows(uint64_t hash) const { return shift_ == 0 || hash >> (64 - shift_) == 0; }
  void Choose(std::span<const ChainKey> chain);
  // Touches what was chosen, from the last to the first.
  void TouchChosen();
  void Touch(uint64_t hash);
  bool IsCurrent(uint32_t place) const;
  void DropOldest();
  // Half of the keys that are followed are followed from now on.
  void Thin();
  // Moves the followed keys to the lowest places, in their order.
  void Pack();

  const uint32_t samples_max_;
  const uint64_t asked_half_;
  uint64_t chunks_max_;
  uint32_t shift_ = 0;  // k
  RecencyRanks ranks_{0};
  std::vector<uint64_t> hash_at_;                     // by place; the newest last
  absl::flat_hash_map<uint64_t, uint32_t> place_of_;  // of the keys that are followed
  uint32_t next_place_ = 0;
  uint32_t oldest_place_ = 0;     // none lies before it
  std::vector<uint64_t> chosen_;  // of the running call
  double asked_ = 0;
  double unknown_ = 0;                   // chunks that no size hits
  std::array<double, kBuckets> from_{};  // chunks that hit from sizes of the bucket on
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_HIT_RATE_CURVE_H_
