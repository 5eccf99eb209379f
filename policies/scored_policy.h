// Retention by score: at its decision rows the policy waits for what a selector chose, and keeps
// that.
//
// Between decisions every row is visible: the kept ones, and all from recent_first on. A decision
// at row D is about the visible rows below D. The last `recent` of them stay whatever their score,
// contiguous; of the others the selector's choice stays, at most `budget` in each column; no row
// but these is visible to the query of row D. Each table ends at the next decision row, so an
// engine's batch ends there too, and each decision is exact at its row.
//
// Two schedules. Once: at the end of the prompt, if the prompt is longer than budget + recent (if
// not, no score is ever needed). By interval: each `interval` rows, first when budget + recent +
// interval rows are visible or the prompt ends, whichever is later; interval 1 is the papers'
// every step.
//
// Truncation. Never below a decision row that rows() has reached, decided or not: another thread
// may be choosing. With kAttentionMass not at all: the mass that the truncated queries gave to
// other rows is summed already and cannot be taken back, so RollbackFloor() == rows().
//
// Thread-compatible. Cost: Append and NextPlan O(1), O(size of the choice) at a decision.
// Sources: H2O (arXiv 2306.14048), SnapKV (2404.14469), TOVA (2401.06104).
#ifndef KVASIR_POLICIES_SCORED_POLICY_H_
#define KVASIR_POLICIES_SCORED_POLICY_H_

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "policies/policy_state.h"
#include "policies/retention_policy.h"

namespace kvasir {

struct ScoredPolicyConfig {
  ScoreNeeds needs;  // kept_rows_max is ignored: it is the budget
  std::shared_ptr<const Selector> selector;
  uint64_t budget = 1;       // rows of a column that a decision keeps beside the recent ones
  uint64_t recent = 0;       // last rows that no decision drops
  uint64_t interval = 0;     // rows from decision to decision; 0: once, at prompt_rows
  uint64_t prompt_rows = 0;  // 0: not known
};

class ScoredPolicy final : public RetentionPolicy {
 public:
  // REQUIRES: a selector, needs.source not kNone, budget >= 1, interval or prompt_rows above 0.
  explicit ScoredPolicy(ScoredPolicyConfig config);

  uint64_t rows() const override { return rows_; }
  void Append(std::span<const TokenId> ids) override { rows_ += ids.size(); }
  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override;
  uint64_t RollbackFloor() const override;
  Encodable encodable() const override { return {EncodableRows::kOneByOne, 0}; }
  std::optional<RetentionPlan> LastTable() const override;
  // Policies that decide by keys alone, between decisions or while one waits.
  absl::Status WriteState(StateWriter& writer) const override;
  absl::Status ReadState(StateReader& reader, uint64_t rows) override;
  absl::Status Truncate(uint64_t rows) override;
  std::unique_ptr<RetentionPolicy> Clone() const override {
    return std::make_unique<ScoredPolicy>(*this);
  }

  // Nothing (kNone) where no decision will ever be made.
  ScoreNeeds Needs() const override;
  std::shared_ptr<const Selector> Waiting() const override;
  uint64_t DecisionRow() const override { return IsWaiting() ? decision_row_ : 0; }
  // REQUIRES also: sets of one size, at most `budget`, ascending, of candidates only.
  void Decide(std::vector<KeepSet> keep) override;

 private:
  // The row of the first decision; kNoRow: there is none.
  uint64_t FirstDecisionRow() const;
  StateIdentity Identity() const;
  // Errors: kUnimplemented where scores come from what an engine reported.
  absl::Status CheckOwnScores() const;
  bool IsWaiting() const { return returned_ && !decided_ && rows_ >= decision_row_; }
  // First visible row that the next decision leaves alone.
  uint64_t RecentAfter() const;
  // Entries of a column that the next decision is about, without the recent ones.
  uint64_t Candidates() const { return kept_ + RecentAfter() - recent_first_; }

  ScoredPolicyConfig config_;
  uint64_t rows_ = 0;
  bool returned_ = false;           // the initial table
  bool decided_ = false;            // keep_sets_ waits to be returned
  uint64_t decision_row_ = kNoRow;  // the next one
  uint64_t last_decision_row_ = 0;  // of the last returned plan
  uint64_t kept_ = 0;               // rows of each column
  uint64_t recent_first_ = 0;
  std::vector<KeepSet> keep_sets_;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SCORED_POLICY_H_
