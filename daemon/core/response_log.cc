#include "daemon/core/response_log.h"

#include <algorithm>
#include <vector>

namespace kvasir::core {
namespace {

constexpr uint64_t kTypicalRows = 256;

template <typename T>
void AddLast(const T& value, std::deque<T>* values) {
  values->push_back(value);
  if (values->size() > ResponseLog::kKept) values->pop_front();
}

}  // namespace

void ResponseLog::Add(const preemption::Hints& hints, uint64_t rows) {
  rows = std::min(rows, preemption::kPredictedRowsMax);
  if (rows_.size() == kKept) sum_ -= rows_.front();
  sum_ += rows;
  AddLast(rows, &rows_);
  if (hints.predicted_rows) AddLast({*hints.predicted_rows, rows}, &by_rows_);
  if (hints.predicted_rank) AddLast({*hints.predicted_rank, rows}, &by_rank_);
}

uint64_t ResponseLog::typical_rows() const {
  return rows_.empty() ? kTypicalRows : std::max<uint64_t>(sum_ / rows_.size(), 1);
}

std::optional<double> ResponseLog::Tau() const {
  const Pairs& pairs = Foretold();
  return preemption::KendallTau(std::vector<preemption::Foretold>(pairs.begin(), pairs.end()));
}

}  // namespace kvasir::core
