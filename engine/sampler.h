// Sampler: picks the next token from logits.
#ifndef KVASIR_ENGINE_SAMPLER_H_
#define KVASIR_ENGINE_SAMPLER_H_

#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include <absl/status/status.h>

namespace kvasir::engine {

struct SamplerOptions {
  double temperature = 0.0;  // 0: greedy; at most 100
  uint32_t top_k = 0;        // 0: all
  double top_p = 1.0;        // (0, 1]
  uint64_t seed = 0;
};

// Errors: kInvalidArgument naming option and bounds.
absl::Status CheckOptions(const SamplerOptions& options);

// Not thread-safe. The same options and logits give the same tokens.
class Sampler {
 public:
  // REQUIRES: CheckOptions(options) is OK.
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

  // Index of the pick. Greedy: the first of the largest values. REQUIRES: logits is not empty.
  // Cost: one pass greedy; else a sort of the top_k largest (all without top_k).
  uint32_t Next(std::span<const float> logits);

 private:
  const SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<std::pair<double, uint32_t>> candidates_;
};

// Index of the first of the largest values.
uint32_t ArgMax(std::span<const float> logits);

// -ln of the probability that the softmax of `logits` gives to `id`, in double.
double NegativeLogLikelihood(std::span<const float> logits, uint32_t id);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_SAMPLER_H_
