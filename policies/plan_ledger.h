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

#include "base/error.h"
#include "policies/retention_policy.h"

namespace kvasir {

class PlanLedger {
 public:
  // `bound_rows`: rows below it were looked at for this plan beyond those below recent_first.
  void Returned(const RetentionPlan& plan, uint64_t bound_rows = 0) {
    bound_ = std::max({bound_, plan.recent_first, bound_rows});
    from_.push_back(plan.from_row);
  }

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
