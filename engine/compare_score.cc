#include "engine/compare_score.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace kvasir::engine {

Distribution DistributionOf(std::span<const float> logits) {
  Distribution out;
  const auto top = std::max_element(logits.begin(), logits.end());
  out.greedy = static_cast<uint32_t>(top - logits.begin());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - *top);
  const auto shift = static_cast<float>(*top + std::log(sum));
  out.log_probability.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) out.log_probability[i] = logits[i] - shift;
  return out;
}

double Divergence(const Distribution& base, const Distribution& other) {
  double sum = 0;
  for (size_t i = 0; i < base.log_probability.size(); ++i) {
    const float log_p = base.log_probability[i];
    sum += std::exp(log_p) * (log_p - other.log_probability[i]);
  }
  return std::max(sum, 0.0);  // rounding
}

std::vector<double> BlockMeans(std::span<const double> values) {
  std::vector<double> means;
  for (size_t at = 0; at < values.size(); at += kBlockQueries) {
    const auto block = values.subspan(at, std::min(kBlockQueries, values.size() - at));
    means.push_back(std::accumulate(block.begin(), block.end(), 0.0) /
                    static_cast<double>(block.size()));
  }
  return means;
}

double StandardError(std::span<const double> values) {
  if (values.size() < 2) return 0;
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (count - 1) / count);
}

std::vector<size_t> Frontier(std::span<const double> bytes, std::span<const double> loss) {
  std::vector<size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return bytes[a] != bytes[b] ? bytes[a] < bytes[b] : loss[a] < loss[b];
  });
  std::vector<size_t> best;
  double least = std::numeric_limits<double>::infinity();
  for (const size_t i : order) {
    if (!(loss[i] < least)) continue;
    least = loss[i];
    best.push_back(i);
  }
  return best;
}

}  // namespace kvasir::engine
