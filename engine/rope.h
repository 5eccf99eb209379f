// Rotary position embedding with angles in double: in float they are wrong by 0.2 rad at 4 million
// positions. Pairs are interleaved (x[2j], x[2j + 1]), as GGUF files of Llama architecture store
// them. Source: Su et al., RoFormer, section 3.4.2.
#ifndef KVASIR_ENGINE_ROPE_H_
#define KVASIR_ENGINE_ROPE_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/gguf_model.h"

namespace kvasir::engine {

// Const after construction; thread-safe.
class Rope {
 public:
  explicit Rope(const GgufModel& model);
  // Radians a position, of each rotated pair.
  explicit Rope(std::vector<double> frequencies) : frequencies_(std::move(frequencies)) {}

  uint32_t pairs() const { return static_cast<uint32_t>(frequencies_.size()); }

  // Cosine and sine of every pair's angle at `position`; each of pairs() values.
  void Angles(uint64_t position, float* cosine, float* sine) const;

 private:
  std::vector<double> frequencies_;
};

// Turns the first 2 * pairs values of `head` in place; the others stay.
void Rotate(const float* cosine, const float* sine, uint32_t pairs, float* head);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_ROPE_H_
