// Arithmetic of comparisons: what one distribution of the next token costs beside another.
//
// Pure functions; thread-safe.
#ifndef KVASIR_ENGINE_COMPARE_SCORE_H_
#define KVASIR_ENGINE_COMPARE_SCORE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kvasir::engine {

// Queries whose paired differences are averaged before the error is estimated: neighbours are not
// independent.
inline constexpr size_t kBlockQueries = 128;

// The next token's distribution at one query. Cost: one pass over the vocabulary.
struct Distribution {
  std::vector<float> log_probability;
  uint32_t greedy = 0;  // the likeliest token, the lowest of equals
};
Distribution DistributionOf(std::span<const float> logits);

// KL(base || other) in nats; both of the same vocabulary. Never below 0.
double Divergence(const Distribution& base, const Distribution& other);

// Means over blocks of kBlockQueries, the last one shorter.
std::vector<double> BlockMeans(std::span<const double> values);

// Of the mean of independent `values`; 0 for fewer than two.
double StandardError(std::span<const double> values);

// The points that none beats in both: bytes and loss, less is better. Indices by ascending bytes.
std::vector<size_t> Frontier(std::span<const double> bytes, std::span<const double> loss);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_COMPARE_SCORE_H_
