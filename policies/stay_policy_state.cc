// A StayPolicy as bytes: what the last table says, what may be truncated, and the rows that stay
// and are recent yet.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/stay_policy.h"

namespace kvasir {

// Without what decides nothing: prompts differ from one sequence to the next.
StateIdentity StayPolicy::Identity() const {
  const StayPolicyConfig& k = config_;
  return {"stay",
          {{"window", k.window},
           {"prefill_window", TwoWindows() ? k.prefill_window : k.window},
           {"prompt_rows", TwoWindows() ? k.prompt_rows : 0},
           {"record_rows", record_rows_},
           {"n_sink", n_sink_},
           {"rule", DigestOfRule(k.rule.get())}}};
}

absl::Status StayPolicy::WriteState(StateWriter& writer) const {
  WriteIdentity(Identity(), writer);
  writer.Flag(returned_);
  writer.Flag(stale_);
  writer.Flag(generating_);
  for (const uint64_t number : {from_row_, until_row_, recent_first_, kept_, kept_sinks_}) {
    writer.Number(number);
  }
  ledger_.Write(rows_, writer);
  writer.Number(staying_.size());
  for (const uint64_t row : staying_) writer.Number(row);
  return absl::OkStatus();
}

void StayPolicy::ReadTable(StateReader& reader) {
  returned_ = reader.Flag("returned");
  stale_ = reader.Flag("stale");
  generating_ = reader.Flag("generating");
  if (!returned_ && (stale_ || generating_ == TwoWindows())) {
    reader.Fail(DataLoss("policy state has marks of a table and no table: stale={} generating={}",
                         stale_, generating_));
  }
  const uint64_t max = returned_ ? 2 * kStateRowsMax : 0;
  from_row_ = reader.Number("from_row", 0, max);
  until_row_ = reader.Number("until_row", returned_ ? from_row_ + 1 : 0, max);
  recent_first_ = reader.Number("recent_first", 0, std::min(rows_, from_row_));
  kept_ = reader.Number("kept", 0, config_.rule == nullptr ? 0 : recent_first_);
  kept_sinks_ = reader.Number("kept_sinks", 0, std::min(kept_, n_sink_));
  ledger_ = PlanLedger::Read(rows_, returned_ ? std::optional(from_row_) : std::nullopt,
                             recent_first_, reader);
}

void StayPolicy::ReadStaying(StateReader& reader) {
  const uint64_t most = config_.rule == nullptr ? 0 : rows_ - std::min(rows_, recent_first_);
  const uint64_t count = reader.Count("staying", 8, most);
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    const uint64_t min = i == 0 ? recent_first_ : staying_.back() + 1;
    staying_.push_back(reader.Number("staying", min, rows_ - 1));
  }
}

bool StayPolicy::CanGoOn() const {
  if (!returned_) return true;
  const StayPolicyConfig& k = config_;
  // What has left recent is seen through no window any more.
  if (recent_first_ > 0 && recent_first_ + Window() - 1 > from_row_) return false;
  if (!generating_ && (recent_first_ > WindowLow(k.prompt_rows) || until_row_ > k.prompt_rows)) {
    return false;
  }
  if (generating_ && TwoWindows() && std::min(rows_, from_row_) < k.prompt_rows) return false;
  // A table ends before a row that it does not know of leaves the window.
  const uint64_t known = from_row_ > rows_ ? ledger_.bound() : rows_;
  if (stale_ ? from_row_ > rows_ : until_row_ > known + Window()) return false;
  const std::optional<NextRecord> next = RecordAhead();
  return !next || next->due >= (stale_ ? from_row_ + 1 : until_row_);
}

absl::Status StayPolicy::ReadState(StateReader& reader, uint64_t rows) {
  ExpectIdentity(Identity(), reader);
  StayPolicy read(config_);
  read.record_rows_ = record_rows_;
  read.n_sink_ = n_sink_;
  read.rows_ = rows;
  read.ReadTable(reader);
  read.ReadStaying(reader);
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  if (!read.CanGoOn()) {
    return DataLoss(
        "policy state contradicts itself: rows={} from_row={} until_row={} recent_first={} "
        "stale={} generating={} staying={}",
        rows, read.from_row_, read.until_row_, read.recent_first_, read.stale_, read.generating_,
        read.staying_.size());
  }
  *this = std::move(read);
  return absl::OkStatus();
}

}  // namespace kvasir
