#include "policies/selection/budget_selector.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/selection/score_checks.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

KeepSet AllOf(uint64_t candidates) {
  KeepSet all(candidates);
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

// Size of a [heads][entries] span without an overflow.
bool HasSize(size_t size, uint64_t heads, uint64_t entries) {
  return size % heads == 0 && size / heads == entries;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const BudgetSelector>> BudgetSelector::Create(BudgetConfig config) {
  constexpr uint64_t kNoBound = std::numeric_limits<uint64_t>::max();
  KVASIR_RETURN_IF_ERROR(CheckBounds("budget", config.budget, 1, kNoBound));
  if (config.pooling) KVASIR_RETURN_IF_ERROR(CheckKernel(config.kernel, kMaxPoolingKernel));
  return std::shared_ptr<const BudgetSelector>(new BudgetSelector(std::move(config)));
}

std::string BudgetSelector::Description() const {
  const BudgetConfig& k = config_;
  const int pooling = k.pooling ? static_cast<int>(*k.pooling) : -1;
  return fmt::format("budget {} recent {} pooling {} of {} shared {} always ({}) start {}",
                     k.budget, k.recent, pooling, k.pooling ? k.kernel : 0, k.shared_across_heads,
                     k.always == nullptr ? "" : k.always->Description(), k.start_size);
}

absl::Status BudgetSelector::Check(const ScoredRows& rows) const {
  KVASIR_RETURN_IF_ERROR(CheckBounds("entries", rows.entries, 1, kMaxEntries));
  if (rows.kv_heads == 0 || rows.heads == 0 || rows.heads % rows.kv_heads != 0) {
    return InvalidArgument("heads must be a multiple of kv_heads, both >= 1: heads={} kv_heads={}",
                           rows.heads, rows.kv_heads);
  }
  if (rows.sets != 1 && rows.sets != rows.kv_heads) {
    return InvalidArgument("sets must be 1 or kv_heads: sets={} kv_heads={}", rows.sets,
                           rows.kv_heads);
  }
  if (config_.shared_across_heads && rows.sets != 1) {
    return InvalidArgument("heads that share a set must share their rows: sets={} max=1",
                           rows.sets);
  }
  if (!HasSize(rows.scores.size(), rows.heads, rows.entries)) {
    return InvalidArgument("scores must be heads x entries: scores={} heads={} entries={}",
                           rows.scores.size(), rows.heads, rows.entries);
  }
  if (!HasSize(rows.rows.size(), rows.sets, rows.entries) ||
      !HasSize(rows.ids.size(), rows.sets, rows.entries)) {
    return InvalidArgument("rows and ids must be sets x entries: rows={} ids={} sets={} entries={}",
                           rows.rows.size(), rows.ids.size(), rows.sets, rows.entries);
  }
  return CheckFinite(rows.scores, "score");
}

void BudgetSelector::AddPooled(std::span<const float> scores, std::span<float> pooled,
                               std::span<float> sum) const {
  if (config_.pooling) {
    kernels::PoolScores(scores, config_.kernel, *config_.pooling, pooled);
    scores = pooled;
  }
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += scores[i];
}

KeepSet BudgetSelector::FitForced(const KeepSet& forced, std::span<const uint64_t> rows) const {
  KeepSet kept;
  KeepSet others;
  for (const uint32_t entry : forced) {
    (rows[entry] < config_.start_size ? kept : others).push_back(entry);
  }
  kept.resize(std::min<uint64_t>(kept.size(), config_.budget));
  const auto room =
      static_cast<std::ptrdiff_t>(std::min<uint64_t>(config_.budget - kept.size(), others.size()));
  KeepSet merged;
  std::merge(kept.begin(), kept.end(), others.end() - room, others.end(),
             std::back_inserter(merged));
  return merged;
}

KeepSet BudgetSelector::Choose(std::span<const float> scores, std::span<const uint64_t> rows,
                               std::span<const TokenId> ids) const {
  if (config_.always == nullptr) return kernels::TopK(scores, config_.budget);
  KeepSet forced;
  KeepSet free;
  std::vector<float> free_scores;
  for (uint32_t i = 0; i < scores.size(); ++i) {
    if (config_.always->Stays(rows[i], ids[i])) {
      forced.push_back(i);
    } else {
      free.push_back(i);
      free_scores.push_back(scores[i]);
    }
  }
  if (forced.size() >= config_.budget) return FitForced(forced, rows);
  KeepSet chosen = kernels::TopK(free_scores, config_.budget - forced.size());
  for (uint32_t& entry : chosen) entry = free[entry];
  KeepSet merged;
  std::merge(forced.begin(), forced.end(), chosen.begin(), chosen.end(),
             std::back_inserter(merged));
  return merged;
}

absl::StatusOr<std::vector<KeepSet>> BudgetSelector::Select(const ScoredRows& rows) const {
  KVASIR_RETURN_IF_ERROR(Check(rows));
  const uint64_t candidates = rows.entries - std::min(rows.entries, config_.recent);
  const uint32_t set_count = config_.shared_across_heads ? 1 : rows.kv_heads;
  if (candidates <= config_.budget) {
    return std::vector<KeepSet>(set_count, AllOf(candidates));
  }
  // One set sums the heads set * per_set and following. Where the authors take the mean of a group
  // the sum ranks alike: all groups are of one size.
  const uint32_t per_set = rows.heads / set_count;
  std::vector<float> sum(candidates);
  std::vector<float> pooled(config_.pooling ? candidates : 0);
  std::vector<KeepSet> sets;
  for (uint32_t set = 0; set < set_count; ++set) {
    std::fill(sum.begin(), sum.end(), 0.0F);
    for (uint32_t head = set * per_set; head < (set + 1) * per_set; ++head) {
      AddPooled(rows.scores.subspan(head * rows.entries, candidates), pooled, sum);
    }
    KVASIR_RETURN_IF_ERROR(CheckFinite(sum, "score summed over pooling and heads"));
    const uint64_t at = rows.sets == 1 ? 0 : set * rows.entries;
    sets.push_back(
        Choose(sum, rows.rows.subspan(at, candidates), rows.ids.subspan(at, candidates)));
  }
  return sets;
}

}  // namespace kvasir
