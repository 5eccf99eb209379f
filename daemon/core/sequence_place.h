// SequencePlace: where an open sequence is, and what its engine has said about the request behind
// it.
#ifndef KVASIR_DAEMON_CORE_SEQUENCE_PLACE_H_
#define KVASIR_DAEMON_CORE_SEQUENCE_PLACE_H_

#include <algorithm>
#include <cstdint>

#include "base/clock.h"
#include "daemon/core/session.h"
#include "policies/preemption/suspension_order.h"

namespace kvasir::core {

struct SequencePlace {
  Session* session = nullptr;
  uint32_t slot = 0;
  preemption::Hints hints = {};
  Instant requested_at = {};
  uint64_t prompt_rows = 0;     // as far as it is known
  bool suspend_wanted = false;  // its board says so

  uint64_t ResponseRows(uint64_t rows) const { return rows - std::min(rows, prompt_rows); }
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SEQUENCE_PLACE_H_
