#include "policies/stay_policy.h"

#include <algorithm>
#include <utility>

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

RetentionPlan StayPolicy::Make(uint64_t from_row, uint64_t recent_first) {
  const StayPolicyConfig& k = config_;
  RetentionPlan plan;
  plan.from_row = from_row_ = from_row;
  plan.recent_first = recent_first_ = recent_first;
  plan.window = generating_ ? k.window : k.prefill_window;
  plan.until_row = rows_ + plan.window;
  if (!generating_) plan.until_row = std::min(plan.until_row, k.prompt_rows);
  until_row_ = plan.until_row;
  while (!staying_.empty() && staying_.front() < recent_first) {
    plan.append.push_back({staying_.front(), staying_.front()});
    staying_.pop_front();
  }
  plan.sticky.assign(staying_.begin(), staying_.end());
  kept_ += plan.append.size();
  if (kept_ > 0) plan.spans.push_back({kept_, 0, kNoRow});
  returned_ = true;
  stale_ = false;
  quiet_below_ = 0;
  ledger_.Returned(plan);
  return plan;
}

uint64_t StayPolicy::QuietBelow(const PlanHorizon& horizon, uint64_t lead) const {
  // The prefill's plans, and queries truncated back into it, depend on more than these two.
  if (!generating_ || (TwoWindows() && std::min(rows_, until_row_) < config_.prompt_rows)) return 0;
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
  if (!returned_) return Make(0, 0);
  const StayPolicyConfig& k = config_;
  if (!generating_ && rows_ >= k.prompt_rows && until_row_ == k.prompt_rows && !stale_) {
    generating_ = true;
    const uint64_t first = RoundDown(WindowLow(k.prompt_rows), horizon.slots_per_block);
    return Make(k.prompt_rows, std::max(recent_first_, first));
  }
  // Tables follow each other without a gap, however late this call comes; and while the prefill
  // window rules, the rows of the generated part change nothing yet.
  uint64_t query = std::min(rows_, until_row_);
  if (!generating_) query = std::min(query, k.prompt_rows - 1);
  const uint64_t first =
      std::max(recent_first_, RoundDown(WindowLow(query), horizon.slots_per_block));
  const uint64_t window = generating_ ? k.window : k.prefill_window;
  uint64_t reach = rows_ + window;
  if (!generating_) reach = std::min(reach, k.prompt_rows);
  // A short window cannot look lead_rows ahead; half of it keeps the number of tables small.
  const uint64_t lead = std::min(horizon.lead_rows, window / 2);
  const bool ends = until_row_ <= rows_ + lead && reach > until_row_;
  if (!ends && !stale_ && first == recent_first_) {
    quiet_below_ = QuietBelow(horizon, lead);
    quiet_horizon_ = horizon;
    return std::nullopt;
  }
  // The lowest query for which the new table is exact.
  const uint64_t from_row = first == 0 ? 0 : first + window - 1;
  return Make(std::max(from_row_, std::min(from_row, query)), first);
}

absl::Status StayPolicy::Truncate(uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(ledger_.CheckTruncate(rows_, rows));
  if (rows == rows_) return absl::OkStatus();
  rows_ = rows;
  while (!staying_.empty() && staying_.back() >= rows) staying_.pop_back();
  stale_ = returned_;
  quiet_below_ = 0;
  return absl::OkStatus();
}

}  // namespace kvasir
