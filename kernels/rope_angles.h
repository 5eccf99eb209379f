// Cosines and sines of rotary positions, from two small tables instead of a call to sin per
// element.
//
// A delta is 8192 * high + 32 * middle + low with 0 <= low < 32 and 0 <= middle < 256; the turn by
// it is the three turns one after the other, two complex products. That of high and middle is made
// once for as long as they stay, by the caller's vector code: where few rows are kept it is made
// every few rows. The low table is small enough for the first-level cache: a row costs one product
// of what lies near. Entries are computed in double on first use; products are in float, off by at
// most 3e-7. Not thread-safe; GatherRotateRows keeps one object a thread and pairing.
// Memory: 2.1 KiB for each rotated dimension.
#ifndef KVASIR_KERNELS_ROPE_ANGLES_H_
#define KVASIR_KERNELS_ROPE_ANGLES_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <hwy/aligned_allocator.h>

namespace kvasir::kernels {

// Where an entry keeps its pairs. With lanes = 1 in their order. With more, for lanes a multiple
// of 4, each whole vector of that many pairs is stored so that interleaving every 128 bits of it
// with themselves gives each pair twice, in order: the lower halves the first lanes / 2 pairs,
// the upper ones the rest. Pairs behind the last whole vector stay in order.
struct RopeOrder {
  size_t lanes = 1;
  // Where the pair is, of so many.
  size_t At(size_t pair, size_t pairs) const {
    const size_t in = pair % lanes;
    if (lanes == 1 || pair - in + lanes > pairs) {
      return pair;
    }
    const size_t upper = in / (lanes / 2);
    const size_t of_half = in % (lanes / 2);
    return pair - in + of_half / 2 * 4 + upper * 2 + of_half % 2;
  }
  bool operator==(const RopeOrder&) const = default;
};

class RopeAngles {
 public:
  // The two factors of a turn: each [2][pairs], cosines before sines.
  struct Turn {
    const float* high;
    const float* low;
  };

  // Sets `to` to the turn by `a` and `b` one after the other; all are [2][pairs], cosines before
  // sines, and `to` overlaps neither.
  using Product = void (*)(const float* a, const float* b, size_t pairs, float* to);

  // Sets base, number of rotated dimensions and order of the entries; keeps what is known when they
  // are those of before.
  void Use(double theta, uint32_t rotated_dims, RopeOrder order = {});

  // The turn by `delta` positions. Valid until the next call. Costs nothing while its entries are
  // known, a product for each rotated pair where high or middle changed, a pair of cos and sin for
  // each entry seen first.
  Turn Of(int64_t delta, Product product) {
    const int64_t base = delta >> kLowBits;
    const auto low = static_cast<size_t>(delta & (kLowEntries - 1));
    if (base != base_ || !low_known_[low]) {
      Prepare(base, low, product);
    }
    return {.high = base_entry_.get(), .low = low_.get() + low * 2 * pairs_};
  }

 private:
  static constexpr int kLowBits = 5;
  static constexpr int kTableBits = 8;
  static constexpr int64_t kLowEntries = int64_t{1} << kLowBits;
  static constexpr int64_t kEntries = int64_t{1} << kTableBits;
  static constexpr int64_t kNoBase = std::numeric_limits<int64_t>::max();

  // Aligned to cache lines: what is stored across two of them reaches the loads behind it late.
  using Floats = hwy::AlignedFreeUniquePtr<float[]>;

  // Room for so many entries.
  Floats Entries(size_t entries) const;
  // Makes the entries of this base and this low part known.
  void Prepare(int64_t base, size_t low, Product product);
  // Sets the entry to the turn by `positions`.
  void Fill(float* entry, int64_t positions) const;

  double theta_ = 0;
  size_t pairs_ = 0;
  RopeOrder order_;
  std::vector<double> frequencies_;  // radians a position, [pairs]
  Floats low_;                       // [kLowEntries][2][pairs], by low
  Floats middle_;                    // [kEntries][2][pairs], by middle
  Floats high_;                      // the same, by high modulo kEntries
  Floats base_entry_;                // [2][pairs]: high and middle of base_
  int64_t base_ = kNoBase;           // delta >> kLowBits of the entry; out of reach: none
  std::vector<bool> low_known_;
  std::vector<bool> middle_known_;
  std::vector<int64_t> high_of_;  // which high an entry holds; kNoBase: none
};

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ROPE_ANGLES_H_
