// GemFilter: which tokens of a prompt its last query looks at, in one layer. One set of positions
// for all layers and heads; the engine prefills the chosen ids again as a short prompt.
//
// Score of a position: the raw dot product of the last query with its key, summed over the query
// heads, then averaged over `kernel` neighbours with zeros outside (so both ends score lower). No
// scale, no softmax. Source: arXiv 2409.17422, gem_filter_utils.py:6-31 of the authors' code.
#ifndef KVASIR_POLICIES_SELECTION_GEMFILTER_H_
#define KVASIR_POLICIES_SELECTION_GEMFILTER_H_

#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/statusor.h>

#include "kernels/scores.h"

namespace kvasir {

inline constexpr uint32_t kMaxGemFilterKernel = 1023;

struct GemFilterConfig {
  uint32_t topk = 1024;  // positions chosen, at least 1
  uint32_t kernel = 5;   // odd, 1 to kMaxGemFilterKernel
  // always_keep, an extension: the first n_sink and the last n_tail positions are chosen whatever
  // their scores. They count toward topk, so n_sink + n_tail <= topk. The authors keep none.
  uint32_t n_sink = 0;
  uint32_t n_tail = 0;
};

struct GemFilterChoice {
  std::vector<uint32_t> positions;  // ascending; min(topk, keys) of them
  std::vector<float> scores;        // of every key, after the pooling
};

// Immutable, thread-safe.
class GemFilter {
 public:
  // Errors: kInvalidArgument with field, value and bound.
  static absl::StatusOr<GemFilter> Create(const GemFilterConfig& config);

  // `q`: [kv_heads][dim], the last query summed over the query heads of each kv head. `runs`: the
  // rotated keys of the layer in order. Errors: kInvalidArgument for shapes that do not fit, keys
  // outside 1 to 2^32 - 1, a score that is not finite. Cost: one pass over the keys.
  absl::StatusOr<GemFilterChoice> Select(const kernels::KeyShape& shape, std::span<const float> q,
                                         std::span<const kernels::KeyRun> runs) const;

  // The same from dot products that were computed elsewhere, one for each key.
  absl::StatusOr<GemFilterChoice> SelectByDots(std::span<const float> dots) const;

  const GemFilterConfig& config() const { return config_; }

 private:
  explicit GemFilter(const GemFilterConfig& config) : config_(config) {}

  GemFilterConfig config_;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SELECTION_GEMFILTER_H_
