#include "kernels/encoding/block_turn.h"

#include <cstddef>

namespace kvasir::kernels {
namespace {

// A RopeAngles::Product.
void MultiplyTurns(const float* a, const float* b, size_t pairs, float* to) {
  for (size_t pair = 0; pair < pairs; ++pair) {
    const float ac = a[pair], as = a[pairs + pair];
    const float bc = b[pair], bs = b[pairs + pair];
    to[pair] = ac * bc - as * bs;
    to[pairs + pair] = ac * bs + as * bc;
  }
}

}  // namespace

BlockTurn& BlockTurn::Of(const RopeShape& rope) {
  thread_local BlockTurn turn;
  if (rope.theta != turn.theta_ || rope.rotated_dims != turn.rotated_dims_ ||
      rope.pairing != turn.pairing_) {
    turn.theta_ = rope.theta;
    turn.rotated_dims_ = rope.rotated_dims;
    turn.pairing_ = rope.pairing;
    turn.delta_ = 0;
    turn.angles_.Use(rope.theta, rope.rotated_dims);
    turn.cosine_.resize(rope.rotated_dims);
    turn.sine_.resize(rope.rotated_dims);
  }
  return turn;
}

void BlockTurn::Turn(int64_t delta) {
  if (delta == delta_) {
    return;
  }
  delta_ = delta;
  const RopeAngles::Turn turn = angles_.Of(delta, MultiplyTurns);
  const size_t pairs = rotated_dims_ / 2;
  for (size_t pair = 0; pair < pairs; ++pair) {
    const float hc = turn.high[pair], hs = turn.high[pairs + pair];
    const float lc = turn.low[pair], ls = turn.low[pairs + pair];
    const float cosine = hc * lc - hs * ls;
    const float sine = hc * ls + hs * lc;
    if (pairing_ == RopePairing::kInterleaved) {
      cosine_[2 * pair] = cosine_[2 * pair + 1] = cosine;
      sine_[2 * pair] = sine_[2 * pair + 1] = sine;
    } else {
      cosine_[pair] = cosine;
      sine_[pair] = sine;
    }
  }
}

}  // namespace kvasir::kernels
