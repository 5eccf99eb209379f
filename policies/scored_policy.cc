#include "policies/scored_policy.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace kvasir {

ScoredPolicy::ScoredPolicy(ScoredPolicyConfig config) : config_(std::move(config)) {
  const ScoredPolicyConfig& k = config_;
  KVASIR_CHECK(k.selector != nullptr && k.needs.source != ScoreSource::kNone, "no scores");
  KVASIR_CHECK(k.budget >= 1 && (k.interval > 0 || k.prompt_rows > 0),
               "budget={} interval={} prompt_rows={}", k.budget, k.interval, k.prompt_rows);
  if (k.interval > 0) {
    decision_row_ = std::max(k.budget + k.recent + k.interval, k.prompt_rows);
  } else if (k.prompt_rows > k.budget + k.recent) {
    decision_row_ = k.prompt_rows;
  }
}

ScoreNeeds ScoredPolicy::Needs() const {
  if (config_.interval == 0 && config_.prompt_rows <= config_.budget + config_.recent) return {};
  ScoreNeeds needs = config_.needs;
  needs.kept_rows_max = config_.budget;
  return needs;
}

std::shared_ptr<const Selector> ScoredPolicy::Waiting() const {
  return IsWaiting() ? config_.selector : nullptr;
}

uint64_t ScoredPolicy::RecentAfter() const { return decision_row_ - config_.recent; }

void ScoredPolicy::Decide(std::vector<KeepSet> keep) {
  KVASIR_CHECK(IsWaiting(), "rows={} decision_row={}", rows_, decision_row_);
  KVASIR_CHECK(!keep.empty(), "no column");
  const size_t size = keep.front().size();
  KVASIR_CHECK(size <= config_.budget, "kept={} budget={}", size, config_.budget);
  for (const KeepSet& set : keep) {
    KVASIR_CHECK(set.size() == size, "kept={} other={}", size, set.size());
    KVASIR_CHECK(std::is_sorted(set.begin(), set.end(), std::less_equal<>()), "not ascending");
    KVASIR_CHECK(set.empty() || set.back() < Candidates(), "entry={} candidates={}", set.back(),
                 Candidates());
  }
  keep_sets_ = std::move(keep);
  decided_ = true;
}

std::optional<RetentionPlan> ScoredPolicy::NextPlan(const PlanHorizon& /*horizon*/) {
  RetentionPlan plan;
  if (!returned_) {
    returned_ = true;
    plan.until_row = decision_row_;
    return plan;
  }
  if (!decided_) return std::nullopt;
  decided_ = false;
  plan.from_row = last_decision_row_ = decision_row_;
  plan.recent_first = recent_first_ = RecentAfter();
  kept_ = keep_sets_.front().size();
  plan.keep = std::exchange(keep_sets_, {});
  if (kept_ > 0) plan.spans.push_back({kept_, 0, kNoRow});
  decision_row_ = config_.interval > 0 ? decision_row_ + config_.interval : kNoRow;
  plan.until_row = decision_row_;
  return plan;
}

uint64_t ScoredPolicy::RollbackFloor() const {
  if (Needs().source == ScoreSource::kAttentionMass) return rows_;
  return rows_ >= decision_row_ ? decision_row_ : last_decision_row_;
}

absl::Status ScoredPolicy::Truncate(uint64_t rows) {
  if (rows > rows_) {
    return OutOfRange("truncation to a row not appended yet: rows={} max={}", rows, rows_);
  }
  if (rows < RollbackFloor()) {
    return FailedPrecondition("truncation below the rollback floor: rows={} rollback_floor={}",
                              rows, RollbackFloor());
  }
  rows_ = rows;
  return absl::OkStatus();
}

}  // namespace kvasir
