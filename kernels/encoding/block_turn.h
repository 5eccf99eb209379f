// Cosines and sines of the turns of a block's rows.
//
// Products of angles are rounded one by one, on every machine alike: a tile made with vectors
// equals one made without, bit for bit. Not thread-safe.
#ifndef KVASIR_KERNELS_ENCODING_BLOCK_TURN_H_
#define KVASIR_KERNELS_ENCODING_BLOCK_TURN_H_

#include <cstdint>
#include <vector>

#include "kernels/gather.h"
#include "kernels/rope_angles.h"

namespace kvasir::kernels {

class BlockTurn {
 public:
  // The object of this thread, for rows of this shape.
  static BlockTurn& Of(const RopeShape& rope);

  // Makes cosine() and sine() those of `delta` positions. Costs nothing for the delta of before.
  void Turn(int64_t delta);

  // By pair; with RopePairing::kInterleaved each number stands twice, as the elements lie.
  const float* cosine() const { return cosine_.data(); }
  const float* sine() const { return sine_.data(); }

 private:
  RopeAngles angles_;
  RopePairing pairing_ = RopePairing::kInterleaved;
  double theta_ = 0;
  uint32_t rotated_dims_ = 0;
  int64_t delta_ = 0;           // 0: none was made, a row that is not turned needs none
  std::vector<float> product_;  // [2][pairs]: cosines before sines
  std::vector<float> cosine_, sine_;
};

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_BLOCK_TURN_H_
