#include "policies/stay_policy.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace kvasir {

StayPolicy::StayPolicy(StayPolicyConfig config) : config_(std::move(config)) {
  KVASIR_CHECK(config_.window >= 1 && config_.prefill_window >= 1, "window={} prefill_window={}",
               config_.window, config_.prefill_window);
  generating_ = !TwoWindows();
}

bool StayPolicy::TwoWindows() const {
  const StayPolicyConfig& k = config_;
  return k.prompt_rows > 0 && k.prefill_window != k.window;
}

void StayPolicy::Append(std::span<const TokenId> ids) {
  if (const StayRule* rule = config_.rule.get(); rule != nullptr) {
    for (size_t i = 0; i < ids.size(); ++i) {
      if (rule->Stays(rows_ + i, ids[i])) staying_.push_back(rows_ + i);
    }
  }
  rows_ += ids.size();
  ledger_.Reached(rows_);
}

uint64_t StayPolicy::WindowLow(uint64_t query) const {
  const StayPolicyConfig& k = config_;
  const auto low = [](uint64_t i, uint64_t window) { return i + 1 < window ? 0 : i + 1 - window; };
  if (query >= k.prompt_rows || !TwoWindows()) return low(query, k.window);
  return std::min(low(query, k.prefill_window), low(k.prompt_rows, k.window));
}

void StayPolicy::EncodeKept(uint32_t record_rows, uint64_t n_sink) {
  KVASIR_CHECK(!returned_ && rows_ == 0 && record_rows > 0, "rows={} record_rows={}", rows_,
               record_rows);
  record_rows_ = record_rows;
  n_sink_ = n_sink;
}

std::optional<StayPolicy::NextRecord> StayPolicy::RecordAhead() const {
  if (record_rows_ == 0) return std::nullopt;
  const auto sinks = static_cast<uint64_t>(
      std::lower_bound(staying_.begin(), staying_.end(), n_sink_) - staying_.begin());
  const uint64_t missing = record_rows_ - (kept_ - kept_sinks_) % record_rows_;
  if (staying_.size() < sinks + missing) return std::nullopt;
  const StayPolicyConfig& k = config_;
  const uint64_t last = staying_[sinks + missing - 1];
  if (!TwoWindows()) return NextRecord{last, last + k.window};
  // The first query whose windows, and those of all later ones, lie behind the row.
  const uint64_t in_prefill = last + k.prefill_window;
  const uint64_t generated = last + k.window;
  const bool early = in_prefill < k.prompt_rows && generated <= k.prompt_rows;
  return NextRecord{last, early ? in_prefill : std::max(k.prompt_rows, generated)};
}

std::optional<RetentionPlan> StayPolicy::LastTable() const {
  if (!returned_) return std::nullopt;
  RetentionPlan plan;
  plan.from_row = from_row_;
  plan.until_row = until_row_;
  plan.recent_first = recent_first_;
  plan.window = Window();
  if (kept_ > 0) plan.spans.push_back({kept_, 0, kNoRow});
  return plan;
}

RetentionPlan StayPolicy::Make(uint64_t from_row, uint64_t recent_first, uint64_t known) {
  std::vector<MovedRow> moved;
  from_row_ = from_row;
  recent_first_ = recent_first;
  while (!staying_.empty() && staying_.front() < recent_first) {
    moved.push_back({staying_.front(), staying_.front()});
    kept_sinks_ += staying_.front() < n_sink_ ? 1 : 0;
    staying_.pop_front();
  }
  kept_ += moved.size();
  until_row_ = known + Window();
  if (!generating_) until_row_ = std::min(until_row_, config_.prompt_rows);
  if (const auto next = RecordAhead()) until_row_ = std::min(until_row_, next->due);
  returned_ = true;
  stale_ = false;
  quiet_below_ = 0;
  RetentionPlan plan = *LastTable();
  plan.append = std::move(moved);
  plan.sticky.assign(staying_.begin(), std::lower_bound(staying_.begin(), staying_.end(), known));
  ledger_.Returned(plan, from_row > rows_ ? known : 0);
  return plan;
}

std::optional<RetentionPlan> StayPolicy::MakeRecord(uint64_t lead) {
  const std::optional<NextRecord> next = RecordAhead();
  if (!next || stale_ || until_row_ != next->due) return std::nullopt;
  if (!generating_ && next->due >= config_.prompt_rows) return std::nullopt;
  // Not earlier, so that rows go on to move before, and that the table lasts.
  const uint64_t known = std::max(next->last + 1, next->due - std::min(next->due, lead));
  if (rows_ < known) return std::nullopt;
  return Make(next->due, next->last + 1, rows_ < next->due ? known : rows_);
}

RetentionPlan StayPolicy::StartGenerating(const PlanHorizon& horizon) {
  generating_ = true;
  const uint64_t prompt = config_.prompt_rows;
  const uint64_t low = WindowLow(prompt);
  uint64_t first = std::max(recent_first_, RoundDown(low, horizon.slots_per_block));
  if (record_rows_ > 0) {
    // A smaller window lets go of many rows at once: all records that they fill are in use from
    // here on.
    const auto end = std::lower_bound(staying_.begin(), staying_.end(), low);
    const auto sinks = std::lower_bound(staying_.begin(), end, n_sink_);
    const uint64_t open = (kept_ - kept_sinks_) % record_rows_;
    const uint64_t whole = RoundDown(open + static_cast<uint64_t>(end - sinks), record_rows_);
    if (whole > open) first = std::max(first, sinks[static_cast<ptrdiff_t>(whole - open) - 1] + 1);
  }
  return Make(prompt, first, rows_);
}

uint64_t StayPolicy::QuietBelow(const PlanHorizon& horizon, uint64_t lead) const {
  // The prefill's plans, and queries truncated back into it, depend on more than these two.
  if (!generating_ || (TwoWindows() && std::min(rows_, until_row_) < config_.prompt_rows)) return 0;
  if (rows_ < from_row_) return from_row_;
  const uint64_t ends = until_row_ - std::min(until_row_, lead);
  const uint64_t block = RoundDown(recent_first_, horizon.slots_per_block);
  // A query below it sees at least one row of the block that is freed next.
  return std::min(ends, block + horizon.slots_per_block + config_.window - 1);
}

std::optional<RetentionPlan> StayPolicy::NextPlan(const PlanHorizon& horizon) {
  if (rows_ < quiet_below_ && horizon.slots_per_block == quiet_horizon_.slots_per_block &&
      horizon.lead_rows == quiet_horizon_.lead_rows) {
    return std::nullopt;
  }
  if (!returned_) return Make(0, 0, rows_);
  const StayPolicyConfig& k = config_;
  if (!generating_ && rows_ >= k.prompt_rows && until_row_ == k.prompt_rows && !stale_) {
    return StartGenerating(horizon);
  }
  const uint64_t window = Window();
  // A short window cannot look lead_rows ahead; half of it keeps the number of tables small.
  const uint64_t lead = std::min(horizon.lead_rows, window / 2);
  if (std::optional<RetentionPlan> plan = MakeRecord(lead)) return plan;
  // Tables follow each other without a gap, however late this call comes; and while the prefill
  // window rules, the rows of the generated part change nothing yet.
  uint64_t query = std::min(rows_, until_row_);
  if (!generating_) query = std::min(query, k.prompt_rows - 1);
  const uint64_t first =
      std::max(recent_first_, RoundDown(WindowLow(query), horizon.slots_per_block));
  uint64_t reach = rows_ + window;
  if (!generating_) reach = std::min(reach, k.prompt_rows);
  if (const auto next = RecordAhead()) reach = std::min(reach, next->due);
  const bool ends = until_row_ <= rows_ + lead && reach > until_row_;
  // The table of a record that is not in use yet stands as it is.
  const bool ahead = rows_ < from_row_;
  if (!stale_ && (ahead || (!ends && first == recent_first_))) {
    quiet_below_ = QuietBelow(horizon, lead);
    quiet_horizon_ = horizon;
    return std::nullopt;
  }
  // The lowest query for which the new table is exact.
  const uint64_t from_row = first == 0 ? 0 : first + window - 1;
  return Make(std::max(from_row_, std::min(from_row, query)), first, rows_);
}

absl::Status StayPolicy::Truncate(uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(ledger_.CheckTruncate(rows_, rows));
  if (rows == rows_) return absl::OkStatus();
  rows_ = rows;
  while (!staying_.empty() && staying_.back() >= rows) staying_.pop_back();
  // A record that waits for its row was planned from rows that stand.
  stale_ |= returned_ && from_row_ <= rows;
  quiet_below_ = 0;
  return absl::OkStatus();
}

}  // namespace kvasir
