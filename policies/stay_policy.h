// A window, and rows beyond it that a rule keeps for ever: eviction-exact. Static SepLLM, FixLLM,
// and what else is composed of rules.
//
// kept: rows below recent_first that stay; sticky: those at or above it. A table that was made when
// r rows were known holds until row r + window, because a token written later leaves the window
// only that much later. recent_first follows in whole blocks. Where the generate window is larger
// than the prefill window, rows that the first generated token will see are held through the
// prefill. Positions are the original ones.
//
// Encoded (EncodeKept): the record whose last row is `last` comes into use at the first query that
// sees `last` through no window any more, last + window; that row is known as soon as `last` is. No
// table goes beyond it, and none before it moves `last` to kept. The plan is made up to lead_rows
// rows ahead, from the ids of then alone, so that the rows behind them can still be truncated.
//
// Thread-compatible. Cost: Append O(ids), one call of the rule each; NextPlan O(1) when nothing is
// due, else O(window + block). Source: SepLLM (arXiv 2412.12094), section 3.
#ifndef KVASIR_POLICIES_STAY_POLICY_H_
#define KVASIR_POLICIES_STAY_POLICY_H_

#include <deque>
#include <memory>
#include <optional>
#include <span>

#include "policies/plan_ledger.h"
#include "policies/policy_state.h"
#include "policies/retention_policy.h"
#include "policies/stay_rule.h"

namespace kvasir {

struct StayPolicyConfig {
  std::shared_ptr<const StayRule> rule;  // null: nothing stays beyond the window
  uint64_t window = 256;                 // for rows >= prompt_rows, the query's own included
  uint64_t prefill_window = 256;         // for rows below
  uint64_t prompt_rows = 0;
};

class StayPolicy final : public RetentionPolicy {
 public:
  // REQUIRES: both windows >= 1.
  explicit StayPolicy(StayPolicyConfig config);

  uint64_t rows() const override { return rows_; }
  void Append(std::span<const TokenId> ids) override;
  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override;
  uint64_t RollbackFloor() const override { return ledger_.Floor(rows_); }
  Encodable encodable() const override {
    return {config_.rule == nullptr ? EncodableRows::kWindow : EncodableRows::kKept, 0};
  }
  void EncodeKept(uint32_t record_rows, uint64_t n_sink) override;
  std::optional<RetentionPlan> LastTable() const override;
  absl::Status WriteState(StateWriter& writer) const override;
  absl::Status ReadState(StateReader& reader, uint64_t rows) override;
  absl::Status Truncate(uint64_t rows) override;
  std::unique_ptr<RetentionPolicy> Clone() const override {
    return std::make_unique<StayPolicy>(*this);
  }

 private:
  // A record that kept rows will fill: its last row, and the first query that uses it.
  struct NextRecord {
    uint64_t last = 0;
    uint64_t due = 0;
  };
  // Lowest row that some query >= `query` sees through a window.
  uint64_t WindowLow(uint64_t query) const;
  bool TwoWindows() const;
  uint64_t Window() const { return generating_ ? config_.window : config_.prefill_window; }
  // Nothing while its last row is not known.
  std::optional<NextRecord> RecordAhead() const;
  // The plan from which the next record is in use, where it is time for it.
  std::optional<RetentionPlan> MakeRecord(uint64_t lead);
  RetentionPlan StartGenerating(const PlanHorizon& horizon);
  // `known`: ids of rows below it are looked at.
  RetentionPlan Make(uint64_t from_row, uint64_t recent_first, uint64_t known);
  // Lowest number of rows at which a plan may be due while nothing but appending happens.
  // REQUIRES: none is due now.
  uint64_t QuietBelow(const PlanHorizon& horizon, uint64_t lead) const;
  StateIdentity Identity() const;
  void ReadTable(StateReader& reader);
  void ReadStaying(StateReader& reader);
  // Whether what was read can go on for ever: each table ends, and where it ends another begins.
  bool CanGoOn() const;

  StayPolicyConfig config_;
  PlanLedger ledger_;
  uint64_t rows_ = 0;
  std::deque<uint64_t> staying_;  // rows in [recent_first, rows) that stay: ascending
  uint64_t kept_ = 0;
  uint64_t record_rows_ = 0;  // 0: rows stay as written
  uint64_t n_sink_ = 0;
  uint64_t kept_sinks_ = 0;  // kept rows below n_sink_
  // The last plan: its rows, and whether there is one.
  bool returned_ = false;
  bool stale_ = false;  // sticky rows of the last plan have been truncated
  bool generating_ = false;
  uint64_t from_row_ = 0;
  uint64_t until_row_ = 0;
  uint64_t recent_first_ = 0;
  // With fewer rows than this and the horizon of then nothing is due: a look at the number of rows
  // is all that most tokens cost. 0: unknown.
  uint64_t quiet_below_ = 0;
  PlanHorizon quiet_horizon_;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_STAY_POLICY_H_
