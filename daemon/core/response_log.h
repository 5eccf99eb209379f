// ResponseLog: how long the last responses of a tenant were, and how long they were said to be.
//
// Not thread-safe. Cost of Add(): O(1); of Tau(): O(n log n) for at most kKept of each.
#ifndef KVASIR_DAEMON_CORE_RESPONSE_LOG_H_
#define KVASIR_DAEMON_CORE_RESPONSE_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "policies/preemption/kendall_tau.h"
#include "policies/preemption/suspension_order.h"

namespace kvasir::core {

class ResponseLog {
 public:
  static constexpr size_t kKept = 256;

  // A response that has come to its end with so many rows.
  void Add(const preemption::Hints& hints, uint64_t rows);
  // Mean of those that are kept; 256 while there are none.
  uint64_t typical_rows() const;
  // Of what was foretold by length or by rank: the one that was foretold more often.
  uint64_t foretold() const { return Foretold().size(); }
  std::optional<double> Tau() const;

 private:
  using Pairs = std::deque<preemption::Foretold>;
  const Pairs& Foretold() const { return by_rows_.size() >= by_rank_.size() ? by_rows_ : by_rank_; }

  std::deque<uint64_t> rows_;  // the newest last, as in the others
  uint64_t sum_ = 0;           // of rows_
  Pairs by_rows_, by_rank_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_RESPONSE_LOG_H_
