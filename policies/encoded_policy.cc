#include "policies/encoded_policy.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace kvasir {

EncodedPolicy::EncodedPolicy(std::unique_ptr<RetentionPolicy> inner, EncodedPolicyConfig config)
    : inner_(std::move(inner)), config_(config), sealed_(config.n_sink) {}

EncodedPolicy::EncodedPolicy(const EncodedPolicy& other)
    : inner_(other.inner_->Clone()),
      config_(other.config_),
      ledger_(other.ledger_),
      pending_(other.pending_),
      inner_table_(other.inner_table_),
      inner_kept_(other.inner_kept_),
      sinks_kept_(other.sinks_kept_),
      sealed_(other.sealed_),
      from_row_(other.from_row_) {}

void EncodedPolicy::Append(std::span<const TokenId> ids) {
  inner_->Append(ids);
  ledger_.Reached(rows());
}

void EncodedPolicy::AskInner(const PlanHorizon& horizon) {
  if (!pending_) pending_ = inner_->NextPlan(horizon);
  // After a truncation a plan may end before the last table, a record's, begins: it would never be
  // in use, and the one that follows it stands for both.
  while (pending_ && pending_->until_row <= std::min(from_row_, rows())) {
    std::optional<RetentionPlan> next = inner_->NextPlan(horizon);
    if (!next) return;
    next->append.insert(next->append.begin(), pending_->append.begin(), pending_->append.end());
    pending_ = std::move(next);
  }
}

std::optional<RetentionPlan> EncodedPolicy::NextPlan(const PlanHorizon& horizon) {
  AskInner(horizon);
  // Edits come in the order of their rows. A record's is known as soon as its rows are there.
  const bool record_ready = rows() >= sealed_ + config_.record_rows;
  if (!pending_) {
    // An edit that the inner policy must make by the row at which the record is due is not known
    // yet.
    if (!record_ready || inner_table_.until_row <= DueRow()) return std::nullopt;
    return TakeRecord();
  }
  if (pending_->from_row < DueRow()) {
    // The last table begins later, and shows what the inner policy's last one does: it will do.
    if (pending_->from_row < from_row_ && rows() < from_row_) return std::nullopt;
    return TakeInner();
  }
  if (!record_ready) return std::nullopt;
  return pending_->from_row == DueRow() ? TakeBoth() : TakeRecord();
}

RetentionPlan EncodedPolicy::TakeInner() {
  RetentionPlan plan = StartInner();
  Complete(plan);
  return plan;
}

RetentionPlan EncodedPolicy::TakeRecord() {
  RetentionPlan plan;
  plan.from_row = DueRow();
  AddRecord(plan);
  Complete(plan);
  return plan;
}

RetentionPlan EncodedPolicy::TakeBoth() {
  const uint64_t first = sealed_;
  RetentionPlan plan = StartInner();
  if (first + config_.record_rows > inner_table_.recent_first) {
    sealed_ = first;
    AddRecord(plan);
    sealed_ = std::max(sealed_, inner_table_.recent_first);
  }
  Complete(plan);
  return plan;
}

RetentionPlan EncodedPolicy::StartInner() {
  RetentionPlan plan = *std::exchange(pending_, std::nullopt);
  KVASIR_CHECK(plan.drop.empty() && plan.keep.empty() && plan.sticky.empty(),
               "the policy's window cannot be encoded: row={}", plan.from_row);
  inner_table_ = plan;
  inner_table_.append.clear();
  inner_kept_ += plan.append.size();
  KVASIR_CHECK(inner_kept_ == 0 || inner_kept_ == config_.n_sink,
               "the policy keeps other rows than the first ones: rows={} expected={}", inner_kept_,
               config_.n_sink);
  if (sinks_kept_) plan.append.clear();
  sinks_kept_ |= !plan.append.empty();
  // Rows that have left the window for good are not worth a record.
  sealed_ = std::max(sealed_, inner_table_.recent_first);
  return plan;
}

void EncodedPolicy::AddRecord(RetentionPlan& plan) {
  plan.record_first = sealed_;
  plan.record_last = sealed_ += config_.record_rows;
  for (uint64_t row = 0; !sinks_kept_ && row < config_.n_sink; ++row) {
    plan.append.push_back({row, row});
  }
  sinks_kept_ = true;
}

RetentionPlan EncodedPolicy::Table() const {
  RetentionPlan table = inner_table_;
  table.from_row = from_row_;
  table.until_row = std::min(inner_table_.until_row, DueRow());
  table.records_from = inner_table_.recent_first;
  if (sinks_kept_) {
    table.recent_first = sealed_;
    if (inner_kept_ == 0 && config_.n_sink > 0) table.spans = {{config_.n_sink, 0, kNoRow}};
  }
  return table;
}

void EncodedPolicy::Complete(RetentionPlan& plan) {
  from_row_ = std::max(plan.from_row, from_row_);
  RetentionPlan table = Table();
  table.append = std::move(plan.append);
  table.record_first = plan.record_first;
  table.record_last = plan.record_last;
  plan = std::move(table);
  ledger_.Returned(plan);
}

uint64_t EncodedPolicy::RollbackFloor() const {
  return std::max(inner_->RollbackFloor(), ledger_.Floor(rows()));
}

absl::Status EncodedPolicy::Truncate(uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(ledger_.CheckTruncate(inner_->rows(), rows));
  return inner_->Truncate(rows);  // a plan that waits here stands, as one that was returned does
}

}  // namespace kvasir
