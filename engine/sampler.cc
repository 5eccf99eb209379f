#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"

namespace kvasir::engine {

absl::Status CheckOptions(const SamplerOptions& options) {
  if (!(options.temperature >= 0.0 && options.temperature <= 100.0)) {
    return InvalidArgument("temperature out of bounds: temperature={} min=0 max=100",
                           options.temperature);
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    return InvalidArgument("top_p out of bounds: top_p={} above=0 max=1", options.top_p);
  }
  return absl::OkStatus();
}

uint32_t ArgMax(std::span<const float> logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double NegativeLogLikelihood(std::span<const float> logits, uint32_t id) {
  const double max = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  return std::log(sum) + max - static_cast<double>(logits[id]);
}

uint32_t Sampler::Next(std::span<const float> logits) {
  if (options_.temperature == 0.0 || options_.top_k == 1) return ArgMax(logits);
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates_.emplace_back(static_cast<double>(logits[i]) / options_.temperature,
                             static_cast<uint32_t>(i));
  }
  const size_t kept = options_.top_k == 0 ? candidates_.size()
                                          : std::min<size_t>(options_.top_k, candidates_.size());
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(kept),
                    candidates_.end(), std::greater<>());
  candidates_.resize(kept);
  const double max = candidates_.front().first;
  double total = 0.0;
  for (auto& [weight, id] : candidates_) {
    weight = std::exp(weight - max);
    total += weight;
  }
  double mass = 0.0;
  size_t end = 0;
  while (end < candidates_.size() && (end == 0 || mass < options_.top_p * total)) {
    mass += candidates_[end++].first;
  }
  double at = std::uniform_real_distribution<double>(0.0, mass)(random_);
  for (size_t i = 0; i < end; ++i) {
    at -= candidates_[i].first;
    if (at < 0.0) return candidates_[i].second;
  }
  return candidates_[end - 1].second;
}

}  // namespace kvasir::engine
