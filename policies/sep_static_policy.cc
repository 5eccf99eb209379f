#include "policies/sep_static_policy.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace kvasir {

SepStaticPolicy::SepStaticPolicy(SepStaticConfig config) : rule_(std::move(config), {}) {
  const SepStaticConfig& k = rule_.config();
  KVASIR_CHECK(k.window >= 1 && k.prefill_window >= 1, "window={} prefill_window={}", k.window,
               k.prefill_window);
  KVASIR_CHECK(!k.adaptive_init && !k.prefill_hides_padding, "padding in a sequence");
  generating_ = !TwoWindows();
}

bool SepStaticPolicy::TwoWindows() const {
  const SepStaticConfig& k = rule_.config();
  return k.prefill_len > 0 && k.prefill_window != k.window;
}

void SepStaticPolicy::Append(std::span<const TokenId> ids) {
  for (const TokenId id : ids) {
    if (rule_.Stays(rows_, id)) staying_.push_back(rows_);
    ++rows_;
  }
  ledger_.Reached(rows_);
}

uint64_t SepStaticPolicy::WindowLow(uint64_t query) const {
  const SepStaticConfig& k = rule_.config();
  const auto low = [](uint64_t i, uint64_t window) { return i + 1 < window ? 0 : i + 1 - window; };
  if (query >= k.prefill_len || !TwoWindows()) return low(query, k.window);
  return std::min(low(query, k.prefill_window), low(k.prefill_len, k.window));
}

RetentionPlan SepStaticPolicy::Make(uint64_t from_row, uint64_t recent_first) {
  const SepStaticConfig& k = rule_.config();
  RetentionPlan plan;
  plan.from_row = from_row_ = from_row;
  plan.recent_first = recent_first_ = recent_first;
  plan.window = generating_ ? k.window : k.prefill_window;
  plan.until_row = rows_ + plan.window;
  if (!generating_) plan.until_row = std::min(plan.until_row, k.prefill_len);
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
  ledger_.Returned(plan);
  return plan;
}

std::optional<RetentionPlan> SepStaticPolicy::NextPlan(const PlanHorizon& horizon) {
  if (!returned_) return Make(0, 0);
  const SepStaticConfig& k = rule_.config();
  if (!generating_ && rows_ >= k.prefill_len && until_row_ == k.prefill_len && !stale_) {
    generating_ = true;
    const uint64_t first = RoundDown(WindowLow(k.prefill_len), horizon.slots_per_block);
    return Make(k.prefill_len, std::max(recent_first_, first));
  }
  // Tables follow each other without a gap, however late this call comes; and while the prefill
  // window rules, the rows of the generated part change nothing yet.
  uint64_t query = std::min(rows_, until_row_);
  if (!generating_) query = std::min(query, k.prefill_len - 1);
  const uint64_t first =
      std::max(recent_first_, RoundDown(WindowLow(query), horizon.slots_per_block));
  const uint64_t window = generating_ ? k.window : k.prefill_window;
  uint64_t reach = rows_ + window;
  if (!generating_) reach = std::min(reach, k.prefill_len);
  // A short window cannot look lead_rows ahead; half of it keeps the number of tables small.
  const uint64_t lead = std::min(horizon.lead_rows, window / 2);
  const bool ends = until_row_ <= rows_ + lead && reach > until_row_;
  if (!ends && !stale_ && first == recent_first_) return std::nullopt;
  // The lowest query for which the new table is exact.
  const uint64_t from_row = first == 0 ? 0 : first + window - 1;
  return Make(std::max(from_row_, std::min(from_row, query)), first);
}

absl::Status SepStaticPolicy::Truncate(uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(ledger_.CheckTruncate(rows_, rows));
  if (rows == rows_) return absl::OkStatus();
  rows_ = rows;
  while (!staying_.empty() && staying_.back() >= rows) staying_.pop_back();
  stale_ = returned_;
  return absl::OkStatus();
}

}  // namespace kvasir
