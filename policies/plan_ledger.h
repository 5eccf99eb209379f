// How far back a policy may be truncated, given the plans that it has returned.
//
// A returned plan binds in two ways. Rows below its recent_first may have been copied or freed
// already, so they cannot change; and once it is in force (its from_row is reached) the table
// before it is gone, so no query below its from_row can be computed again. Thread-compatible value;
// O(1) amortised.
#ifndef KVASIR_POLICIES_PLAN_LEDGER_H_
#define KVASIR_POLICIES_PLAN_LEDGER_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>

#include "base/error.h"
#include "base/state_codec.h"
#include "policies/retention_policy.h"

namespace kvasir {

class PlanLedger {
 public:
  // `bound_rows`: rows below it were looked at for this plan beyond those below recent_first.
  void Returned(const RetentionPlan& plan, uint64_t bound_rows = 0) {
    bound_ = std::max({bound_, plan.recent_first, bound_rows});
    from_.push_back(plan.from_row);
  }

  bool empty() const { return from_.empty(); }
  // No row below it may change.
  uint64_t bound() const { return bound_; }

  uint64_t Floor(uint64_t rows) const {
    for (auto from = from_.rbegin(); from != from_.rend(); ++from) {
      if (*from <= rows) return std::max(bound_, *from);
    }
    return bound_;
  }

  // Forgets plans that a later one has replaced for good. Call it as rows are appended.
  void Reached(uint64_t rows) {
    while (from_.size() > 1 && from_[1] <= rows) from_.pop_front();
  }

  // As Reached(rows) leaves it: the bound, and from_row of the plan in use and of those ahead.
  void Write(uint64_t rows, StateWriter& writer) const {
    PlanLedger reached = *this;
    reached.Reached(rows);
    writer.Number(reached.bound_);
    writer.Number(reached.from_.size());
    for (const uint64_t from : reached.from_) writer.Number(from);
  }

  // The ledger of a policy whose last plan begins at `last_from` (nothing: it has returned none)
  // and must not be truncated below `bound_min`. Fails the reader where it cannot be one.
  static PlanLedger Read(uint64_t rows, std::optional<uint64_t> last_from, uint64_t bound_min,
                         StateReader& reader) {
    PlanLedger ledger;
    ledger.bound_ = reader.Number("plan_bound", bound_min, last_from ? rows : 0);
    const uint64_t plans = reader.Count("plans", 8, kNoRow);
    for (uint64_t i = 0; i < plans && reader.ok(); ++i) {
      const uint64_t last = last_from.value_or(0);
      const uint64_t min = i == 0 ? 0 : std::max(rows + 1, ledger.from_.back());
      ledger.from_.push_back(
          reader.Number("plan_from_row", min, i == 0 ? std::min(rows, last) : last));
    }
    const bool fits = last_from ? !ledger.empty() && ledger.from_.back() == *last_from : plans == 0;
    if (!fits) {
      reader.Fail(DataLoss("policy state has other plans than its last one: plans={} from_row={}",
                           plans, last_from.value_or(0)));
    }
    return ledger;
  }

  absl::Status CheckTruncate(uint64_t rows, uint64_t to) const {
    if (to > rows) {
      return OutOfRange("truncation to a row not appended yet: rows={} max={}", to, rows);
    }
    if (to < Floor(rows)) {
      return FailedPrecondition("truncation below the rollback floor: rows={} rollback_floor={}",
                                to, Floor(rows));
    }
    return absl::OkStatus();
  }

 private:
  uint64_t bound_ = 0;
  std::deque<uint64_t> from_;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_PLAN_LEDGER_H_
