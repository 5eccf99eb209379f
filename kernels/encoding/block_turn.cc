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
    turn.product_.resize(rope.rotated_dims);
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
  MultiplyTurns(turn.high, turn.low, pairs, product_.data());
  const size_t times = pairing_ == RopePairing::kInterleaved ? 2 : 1;
  for (size_t at = 0; at < times * pairs; ++at) {
    cosine_[at] = product_[at / times];
    sine_[at] = product_[pairs + at / times];
  }
}

}  // namespace kvasir::kernels
