// Cosines and sines of rotary positions, from two small tables instead of a call to sin per
// element.
//
// A delta is 256 * high + low with 0 <= low < 256, and the turn by it is the turn by 256 * high
// followed by the turn by low: one complex product in double. Entries are computed on first use.
// Not thread-safe; GatherRotateRows keeps one object a thread. Memory: 8 KiB for each rotated
// dimension.
#ifndef KVASIR_KERNELS_ROPE_ANGLES_H_
#define KVASIR_KERNELS_ROPE_ANGLES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvasir::kernels {

class RopeAngles {
 public:
  // The two factors of a turn: each [2][pairs], cosines before sines.
  struct Turn {
    const float* high;
    const float* low;
  };

  // Sets base and number of rotated dimensions; keeps what is known when they are those of before.
  void Use(double theta, uint32_t rotated_dims);

  // The turn by `delta` positions. Valid until the next call. Costs nothing while its entries are
  // known, a pair of cos and sin for each rotated pair otherwise.
  Turn Of(int64_t delta);

 private:
  static constexpr size_t kEntries = 256;
  // Sets the entry to the turn by `positions`.
  void Fill(float* entry, int64_t positions) const;

  double theta_ = 0;
  size_t pairs_ = 0;
  std::vector<double> frequencies_;  // radians a position, [pairs]
  std::vector<float> low_;           // [kEntries][2][pairs], by low
  std::vector<float> high_;          // the same, by high modulo kEntries
  std::vector<bool> low_known_;
  std::vector<bool> high_known_;
  std::vector<int64_t> high_of_;  // which high an entry holds
};

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ROPE_ANGLES_H_
