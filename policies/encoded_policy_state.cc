// An EncodedPolicy as bytes: the policy within, the plan of it that waits, and where records stand.
// Of both plans only the table is written; what the waiting one moves follows from it.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/encoded_policy.h"

namespace kvasir {
namespace {

uint64_t RowsOf(const std::vector<KeptSpan>& spans) {
  uint64_t rows = 0;
  for (const KeptSpan& span : spans) rows += span.count;
  return rows;
}

}  // namespace

StateIdentity EncodedPolicy::Identity() const {
  return {"encoded",
          {{"record_rows", config_.record_rows},
           {"recent", config_.recent},
           {"n_sink", config_.n_sink}}};
}

absl::Status EncodedPolicy::WriteState(StateWriter& writer) const {
  StateWriter inner;
  KVASIR_RETURN_IF_ERROR(inner_->WriteState(inner));
  WriteIdentity(Identity(), writer);
  writer.Part(inner);
  writer.Flag(pending_.has_value());
  if (pending_) {
    writer.Number(inner_table_.from_row);
    writer.Number(inner_table_.until_row);
    writer.Number(inner_table_.recent_first);
    writer.Number(inner_table_.window);
    writer.Flag(inner_kept_ > 0);
  }
  writer.Flag(sinks_kept_);
  writer.Number(sealed_);
  writer.Number(from_row_);
  ledger_.Write(rows(), writer);
  return absl::OkStatus();
}

void EncodedPolicy::ReadPending(StateReader& reader) {
  const RetentionPlan last = inner_->LastTable().value_or(RetentionPlan());
  inner_table_ = last;
  inner_kept_ = RowsOf(last.spans);
  if (!reader.Flag("pending")) return;
  RetentionPlan shown;
  shown.from_row = reader.Number("shown_from_row", 0, last.from_row);
  shown.until_row =
      reader.Number("shown_until_row", std::max(last.from_row, shown.from_row + 1), kNoRow);
  shown.recent_first = reader.Number("shown_recent_first", 0, last.recent_first);
  shown.window = reader.Number("shown_window", 0, last.window);
  pending_ = last;
  if (reader.Flag("shown_kept")) {
    shown.spans = last.spans;
    if (inner_kept_ == 0) reader.Fail(DataLoss("policy state shows kept rows where none are"));
  } else {
    for (uint64_t row = 0; row < inner_kept_ && reader.ok(); ++row) {
      pending_->append.push_back({row, row});
    }
  }
  inner_table_ = std::move(shown);
  inner_kept_ = RowsOf(inner_table_.spans);
}

bool EncodedPolicy::CanGoOn() const {
  if (inner_kept_ > 0 && !sinks_kept_) return false;
  const bool started = inner_->LastTable().has_value();
  if (!started) return !pending_ && !sinks_kept_ && from_row_ == 0;
  if (from_row_ >= Table().until_row) return false;
  if (!pending_) return true;
  const bool cut = pending_->from_row > rows();  // ahead, where a table ends
  return (!cut || pending_->from_row == inner_table_.until_row) &&
         (inner_table_.window == 0 || inner_table_.window == pending_->window);
}

absl::Status EncodedPolicy::ReadState(StateReader& reader, uint64_t rows) {
  ExpectIdentity(Identity(), reader);
  EncodedPolicy read(inner_->Clone(), config_);
  StateReader inner = reader.Part("inner");
  reader.Fail(read.inner_->ReadState(inner, rows));
  read.ReadPending(reader);
  read.sinks_kept_ = reader.Flag("sinks_kept");
  // Until the first record they are where the policy within has left them.
  const uint64_t first = std::max(config_.n_sink, read.inner_table_.recent_first);
  read.sealed_ = reader.Number("sealed", first, read.sinks_kept_ ? rows : first);
  read.from_row_ = reader.Number("from_row", 0, 2 * kStateRowsMax);
  const bool started = read.inner_->LastTable().has_value();
  read.ledger_ =
      PlanLedger::Read(rows, started ? std::optional(read.from_row_) : std::nullopt,
                       read.sinks_kept_ ? read.sealed_ : read.inner_table_.recent_first, reader);
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  if (!read.CanGoOn()) {
    return DataLoss(
        "policy state contradicts itself: rows={} from_row={} sealed={} sinks_kept={} pending={} "
        "shown_from_row={} shown_until_row={}",
        rows, read.from_row_, read.sealed_, read.sinks_kept_, read.pending_.has_value(),
        read.inner_table_.from_row, read.inner_table_.until_row);
  }
  *this = std::move(read);
  return absl::OkStatus();
}

}  // namespace kvasir
