#include "policies/selection/gemfilter.h"

#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/selection/score_checks.h"

namespace kvasir {
absl::StatusOr<GemFilter> GemFilter::Create(const GemFilterConfig& config) {
  KVASIR_RETURN_IF_ERROR(CheckBounds("topk", config.topk, 1, std::numeric_limits<uint32_t>::max()));
  KVASIR_RETURN_IF_ERROR(CheckKernel(config.kernel, kMaxGemFilterKernel));
  if (uint64_t{config.n_sink} + config.n_tail > config.topk) {
    return InvalidArgument("always_keep exceeds topk: n_sink={} n_tail={} max_sum={}",
                           config.n_sink, config.n_tail, config.topk);
  }
  return GemFilter(config);
}

absl::StatusOr<GemFilterChoice> GemFilter::SelectByDots(std::span<const float> dots) const {
  KVASIR_RETURN_IF_ERROR(CheckBounds("keys", dots.size(), 1, kMaxEntries));
  KVASIR_RETURN_IF_ERROR(CheckFinite(dots, "score"));
  GemFilterChoice choice;
  choice.scores.resize(dots.size());
  kernels::PoolScores(dots, config_.kernel, kernels::Pooling::kAverage, choice.scores);
  KVASIR_RETURN_IF_ERROR(CheckFinite(choice.scores, "pooled score"));
  const auto keys = static_cast<uint32_t>(dots.size());
  if (keys <= config_.topk) {
    choice.positions.resize(keys);
    std::iota(choice.positions.begin(), choice.positions.end(), 0U);
    return choice;
  }
  // topk < keys, so the two ends do not meet.
  const uint32_t middle = keys - config_.n_sink - config_.n_tail;
  const uint32_t chosen = config_.topk - config_.n_sink - config_.n_tail;
  choice.positions.resize(config_.n_sink);
  std::iota(choice.positions.begin(), choice.positions.end(), 0U);
  const std::span<const float> scores(choice.scores);
  for (const uint32_t at : kernels::TopK(scores.subspan(config_.n_sink, middle), chosen)) {
    choice.positions.push_back(config_.n_sink + at);
  }
  for (uint32_t at = keys - config_.n_tail; at < keys; ++at) choice.positions.push_back(at);
  return choice;
}

absl::StatusOr<GemFilterChoice> GemFilter::Select(const kernels::KeyShape& shape,
                                                  std::span<const float> q,
                                                  std::span<const kernels::KeyRun> runs) const {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t keys, CountKeys(shape, runs));
  if (q.size() != uint64_t{shape.kv_heads} * shape.dim) {
    return InvalidArgument("query must be kv_heads x dim: query={} kv_heads={} dim={}", q.size(),
                           shape.kv_heads, shape.dim);
  }
  KVASIR_RETURN_IF_ERROR(CheckFinite(q, "query"));
  std::vector<float> dots(keys);
  kernels::DotRows(shape, q.data(), runs, dots.data());
  return SelectByDots(dots);
}

}  // namespace kvasir
