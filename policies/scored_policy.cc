#include "policies/scored_policy.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {

ScoredPolicy::ScoredPolicy(ScoredPolicyConfig config) : config_(std::move(config)) {
  const ScoredPolicyConfig& k = config_;
  KVASIR_CHECK(k.selector != nullptr && k.needs.source != ScoreSource::kNone, "no scores");
  KVASIR_CHECK(k.budget >= 1 && (k.interval > 0 || k.prompt_rows > 0),
               "budget={} interval={} prompt_rows={}", k.budget, k.interval, k.prompt_rows);
  decision_row_ = FirstDecisionRow();
}

uint64_t ScoredPolicy::FirstDecisionRow() const {
  const ScoredPolicyConfig& k = config_;
  if (k.interval > 0) return std::max(k.budget + k.recent + k.interval, k.prompt_rows);
  return k.prompt_rows > k.budget + k.recent ? k.prompt_rows : kNoRow;
}

ScoreNeeds ScoredPolicy::Needs() const {
  if (FirstDecisionRow() == kNoRow) return {};
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

std::optional<RetentionPlan> ScoredPolicy::LastTable() const {
  if (!returned_) return std::nullopt;
  RetentionPlan plan;
  plan.from_row = last_decision_row_;
  plan.until_row = decision_row_;
  plan.recent_first = recent_first_;
  if (kept_ > 0) plan.spans.push_back({kept_, 0, kNoRow});
  return plan;
}

std::optional<RetentionPlan> ScoredPolicy::NextPlan(const PlanHorizon& /*horizon*/) {
  if (!returned_) {
    returned_ = true;
    return LastTable();
  }
  if (!decided_) return std::nullopt;
  decided_ = false;
  recent_first_ = RecentAfter();
  last_decision_row_ = decision_row_;
  decision_row_ = config_.interval > 0 ? decision_row_ + config_.interval : kNoRow;
  kept_ = keep_sets_.front().size();
  RetentionPlan plan = *LastTable();
  plan.keep = std::exchange(keep_sets_, {});
  return plan;
}

StateIdentity ScoredPolicy::Identity() const {
  const ScoredPolicyConfig& k = config_;
  return {"scored",
          {{"score_source", static_cast<uint64_t>(k.needs.source)},
           {"shared_across_heads", k.needs.shared_across_heads ? 1U : 0U},
           {"budget", k.budget},
           {"recent", k.recent},
           {"interval", k.interval},
           {"first_decision_row", FirstDecisionRow()},
           {"selector", DigestOf(k.selector->Description())}}};
}

absl::Status ScoredPolicy::CheckOwnScores() const {
  const ScoreSource source = Needs().source;
  if (source == ScoreSource::kAttentionMass || source == ScoreSource::kWindowQueries) {
    return Unimplemented(
        "the state of a policy that decides by what an engine reported is not all its own: "
        "score_source={}",
        source == ScoreSource::kAttentionMass ? "attention_mass" : "window_queries");
  }
  return absl::OkStatus();
}

absl::Status ScoredPolicy::WriteState(StateWriter& writer) const {
  KVASIR_RETURN_IF_ERROR(CheckOwnScores());
  if (decided_) {
    return FailedPrecondition("a decision waits for its plan: decision_row={}", decision_row_);
  }
  WriteIdentity(Identity(), writer);
  writer.Flag(returned_);
  writer.Number(last_decision_row_);
  writer.Number(kept_);
  return absl::OkStatus();
}

absl::Status ScoredPolicy::ReadState(StateReader& reader, uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(CheckOwnScores());
  ExpectIdentity(Identity(), reader);
  ScoredPolicy read(config_);
  read.rows_ = rows;
  read.returned_ = reader.Flag("returned");
  const uint64_t first = FirstDecisionRow();
  const uint64_t last = reader.Number("last_decision_row", 0, read.returned_ ? rows : 0);
  const uint64_t recent_first = last - std::min(last, config_.recent);
  const uint64_t kept = reader.Number("kept", 0, std::min(config_.budget, recent_first));
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  if (last > 0) {
    const uint64_t interval = config_.interval;
    if (last < first || (interval == 0 ? last > first : (last - first) % interval != 0)) {
      return DataLoss(
          "policy state has a decision at a row without one: last_decision_row={} first={} "
          "interval={}",
          last, first, interval);
    }
    read.last_decision_row_ = last;
    read.recent_first_ = recent_first;
    read.decision_row_ = interval > 0 ? last + interval : kNoRow;
    read.kept_ = kept;
  }
  *this = std::move(read);
  return absl::OkStatus();
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
