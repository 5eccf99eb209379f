// A random walk over the calls of a policy, as an owner may make them: what all of them answered,
// as text, so that two policies can be compared, and the first promise of retention_policy.h that
// was broken. Begins in any state.
#ifndef KVASIR_TESTS_POLICIES_POLICY_WALK_H_
#define KVASIR_TESTS_POLICIES_POLICY_WALK_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "policies/retention_policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir::testing {

inline std::string TextOf(const RetentionPlan& plan) {
  std::string text = fmt::format(
      "from {} until {} recent {} window {} seal {}..{} record {}..{} from {} far {} drop {} "
      "sticky {} keep {}",
      plan.from_row, plan.until_row, plan.recent_first, plan.window, plan.seal_first,
      plan.seal_last, plan.record_first, plan.record_last, plan.records_from, plan.far_position,
      fmt::join(plan.drop, ","), fmt::join(plan.sticky, ","), plan.keep);
  for (const MovedRow& moved : plan.append) {
    text += fmt::format(" +{}@{}", moved.row, moved.rotated_at);
  }
  for (const KeptSpan& span : plan.spans) {
    text += fmt::format(" [{} {} {}]", span.count, span.query_offset, span.query_max);
  }
  return text;
}

class PolicyWalk {
 public:
  // `truncated`: the last call before the walk was Truncate(), so that plans are asked for first.
  PolicyWalk(RetentionPolicy* policy, uint64_t seed, bool truncated = true)
      : policy_(*policy), random_(seed), last_(policy->LastTable()), truncated_(truncated) {
    if (last_) kept_ = RowsOf(last_->spans);
  }

  // One call, or plans until none is due.
  void Step() {
    if (!violation_.empty()) return;
    Require(policy_.RollbackFloor() <= policy_.rows(), "rollback floor above rows");
    const bool must_plan = last_ ? truncated_ || policy_.rows() >= last_->until_row : Percent(70);
    if (must_plan || Percent(30)) return TakePlans();
    if (Percent(20)) return Truncate();
    Append();
  }

  void Run(int steps) {
    for (int i = 0; i < steps && violation_.empty(); ++i) Step();
  }

  bool truncated() const { return truncated_; }
  const std::string& trace() const { return trace_; }
  const std::string& violation() const { return violation_; }

 private:
  static uint64_t RowsOf(const std::vector<KeptSpan>& spans) {
    uint64_t rows = 0;
    for (const KeptSpan& span : spans) rows += span.count;
    return rows;
  }

  uint64_t UpTo(uint64_t most) { return random_() % (most + 1); }
  bool Percent(uint64_t percent) { return random_() % 100 < percent; }
  void Require(bool holds, const char* what) {
    if (!holds && violation_.empty()) {
      violation_ =
          fmt::format("{}: rows {} last {}", what, policy_.rows(), last_ ? TextOf(*last_) : "none");
    }
  }

  void Append() {
    const uint64_t left = last_ ? last_->until_row - policy_.rows() : kNoRow;
    std::vector<TokenId> ids(std::min<uint64_t>(left, 1 + UpTo(Percent(20) ? 200 : 30)));
    for (TokenId& id : ids) id = static_cast<TokenId>(UpTo(11));
    const uint64_t rows = policy_.rows() + ids.size();
    policy_.Append(ids);
    trace_ += fmt::format("append {}\n", ids.size());
    Require(policy_.rows() == rows, "rows were not appended");
  }

  void Truncate() {
    const uint64_t floor = policy_.RollbackFloor();
    const uint64_t rows = policy_.rows() - UpTo(std::min<uint64_t>(policy_.rows() - floor, 90));
    trace_ += fmt::format("truncate {} floor {}\n", rows, floor);
    Require(policy_.Truncate(rows).ok() && policy_.rows() == rows, "truncation was refused");
    Require(floor == 0 || !policy_.Truncate(floor - 1).ok(), "truncation below the floor");
    truncated_ = true;
  }

  void TakePlans() {
    const PlanHorizon horizon = {uint32_t{1} << UpTo(7), UpTo(150)};
    Decide();
    // A policy that is far behind catches up, a row or more at a time, each with a decision of its
    // own.
    for (uint64_t left = 2 * policy_.rows() + 8; violation_.empty(); --left) {
      std::optional<RetentionPlan> plan = policy_.NextPlan(horizon);
      if (!plan) {
        if (!Decide()) break;
        continue;
      }
      Require(left > 0, "no end of plans");
      trace_ += TextOf(*plan) + "\n";
      Check(*plan);
    }
    truncated_ = false;
    Require(last_.has_value(), "no first table");
    if (last_) Require(policy_.rows() < last_->until_row, "another plan was due");
  }

  // As the daemon does, with random scores.
  bool Decide() {
    const std::shared_ptr<const Selector> selector = policy_.Waiting();
    if (selector == nullptr) return false;
    constexpr uint32_t kHeads = 2;
    const ScoreNeeds needs = policy_.Needs();
    ScoredRows rows;
    rows.kv_heads = rows.heads = kHeads;
    rows.entries = kept_ + policy_.DecisionRow() - last_->recent_first;
    rows.sets = needs.shared_across_heads ? 1 : kHeads;
    std::vector<float> scores(kHeads * rows.entries);
    for (float& score : scores) score = static_cast<float>(UpTo(1000));
    std::vector<uint64_t> numbers(rows.sets * rows.entries);
    const std::vector<TokenId> ids(numbers.size(), 3);
    for (uint64_t& number : numbers) number = UpTo(policy_.DecisionRow() - 1);
    rows.scores = scores;
    rows.rows = numbers;
    rows.ids = ids;
    absl::StatusOr<std::vector<KeepSet>> keep = selector->Select(rows);
    Require(keep.ok(), "the selector refused the scores");
    if (keep.ok()) policy_.Decide(*std::move(keep));
    return keep.ok();
  }

  void Check(const RetentionPlan& plan) {
    const uint64_t rows = policy_.rows();
    const RetentionPlan before = last_.value_or(RetentionPlan{});
    Require(last_ || (plan.from_row == 0 && plan.append.empty()), "first table not of row 0");
    Require(plan.from_row >= before.from_row, "from_row decreases");
    Require(!last_ || plan.from_row <= before.until_row, "gap before from_row");
    Require(plan.from_row <= rows || plan.from_row == before.until_row, "from_row too early");
    Require(plan.from_row < plan.until_row, "empty table");
    Require(plan.recent_first >= before.recent_first, "recent_first decreases");
    Require(plan.recent_first <= rows, "recent_first not written yet");
    Require(plan.records_from >= before.records_from, "records_from decreases");
    if (plan.record_first < plan.record_last) {
      Require(plan.record_first >= before.recent_first, "record of rows that were moved");
      Require(plan.record_last <= plan.recent_first, "record of recent rows");
    }
    Require(std::is_sorted(plan.drop.begin(), plan.drop.end(), std::less_equal<>()), "drop order");
    Require(plan.drop.empty() || plan.drop.back() < kept_, "drops what is not kept");
    for (const MovedRow& moved : plan.append) {
      Require(moved.row < rows && moved.row < plan.recent_first, "moves a row that is not written");
    }
    kept_ = plan.keep.empty() ? kept_ - plan.drop.size() + plan.append.size() : plan.keep[0].size();
    Require(RowsOf(plan.spans) == kept_, "spans are no partition of the kept rows");
    Require(std::is_sorted(plan.sticky.begin(), plan.sticky.end(), std::less_equal<>()) &&
                (plan.sticky.empty() ||
                 (plan.sticky.front() >= plan.recent_first && plan.sticky.back() < rows)),
            "sticky rows");
    CheckLastTable(plan);
    last_ = plan;
  }

  void CheckLastTable(RetentionPlan plan) {
    plan.drop.clear();
    plan.append.clear();
    plan.sticky.clear();
    plan.keep.clear();
    plan.seal_first = plan.seal_last = plan.record_first = plan.record_last = 0;
    const std::optional<RetentionPlan> table = policy_.LastTable();
    Require(table && TextOf(*table) == TextOf(plan), "LastTable() is not the last plan's");
  }

  RetentionPolicy& policy_;
  std::mt19937_64 random_;
  std::optional<RetentionPlan> last_;
  uint64_t kept_ = 0;
  bool truncated_;
  std::string trace_;
  std::string violation_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_POLICY_WALK_H_
