// KeyRotation: turns unrotated keys to their positions where attention reads them.
//
// Angles come from two tables, of multiples of 256 positions and of the positions below 256: the
// turn by a position is the turn by its one followed by that by the other. Cover() by one thread;
// the rest is const and thread-safe until the next Cover(). Memory: 8 bytes a rotated pair for
// every 256 positions of the longest sequence seen, and 2 KiB a pair.
#ifndef KVASIR_ENGINE_KEY_ROTATION_H_
#define KVASIR_ENGINE_KEY_ROTATION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/attention_plan.h"
#include "engine/rope.h"
#include "kernels/attention.h"

namespace kvasir::engine {

class KeyRotation {
 public:
  // `rope` must outlive it. type: kF16 or kF32.
  KeyRotation(const Rope& rope, kernels::RowType type, uint32_t head_dim)
      : rope_(rope), type_(type), head_dim_(head_dim) {}

  // Makes known the angles of all positions below `end` > 0.
  void Cover(uint64_t end);

  // Floats of working memory that Rotate() needs for rows of `heads` kv heads.
  size_t ScratchFloats(uint32_t heads) const {
    return size_t{heads} * head_dim_ + 2 * size_t{rope_.pairs()};
  }

  // Writes the keys of kv heads [head, head + heads) of slots [slots.first, slots.last) to `into`,
  // [slot][head][head_dim] in the row type, each turned to its position. Positions that Cover() was
  // not asked for count as the last one that it was. Cost: some 2 ns for each rotated pair.
  void Rotate(const PlannedRun& planned, SlotRange slots, uint32_t head, uint32_t heads,
              std::span<float> scratch, std::byte* into) const;

 private:
  void TurnTo(uint64_t position, float* cosine, float* sine) const;

  const Rope& rope_;
  const kernels::RowType type_;
  const uint32_t head_dim_;
  uint64_t end_ = 0;
  std::vector<float> low_;   // [256][cosine | sine][pair]
  std::vector<float> high_;  // the same of position 256 * i
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_KEY_ROTATION_H_
