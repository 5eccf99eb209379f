// SuspensionOrder: which of a tenant's sequences give their memory up first when it is short.
//
// By what their engines say of them: the lowest priority first, then those that have most rows to
// go, so that what is about to end gives its memory back by ending (shortest remaining first:
// Zheng et al., Response Length Perception and Sequence Scheduling, 2023; Fu et al., Efficient LLM
// Scheduling by Learning to Rank, 2024, which needs the order of lengths alone). Those whose
// requests have waited long come last, whatever is said of them, the oldest at the very end: so
// each request is at some time the one that is suspended last, and nobody starves (the guard of Fu
// et al., section 3).
//
// Pure: no clock, no state. Thread-safe.
#ifndef KVASIR_POLICIES_PREEMPTION_SUSPENSION_ORDER_H_
#define KVASIR_POLICIES_PREEMPTION_SUSPENSION_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kvasir::preemption {

inline constexpr int32_t kPriorityMax = 100;  // and -kPriorityMax
inline constexpr uint64_t kPredictedRowsMax = uint64_t{1} << 32;

// What an engine says about one sequence. At most one of the predictions.
struct Hints {
  int32_t priority = 0;                         // larger: suspended later
  std::optional<uint64_t> predicted_rows = {};  // of its response, in all
  // Larger: a longer response. On any scale; compared with other ranks alone.
  std::optional<uint32_t> predicted_rank = {};
  friend bool operator==(const Hints&, const Hints&) = default;
};

struct Candidate {
  Hints hints;
  uint64_t response_rows = 0;  // behind its prompt, so far
  uint64_t age_ms = 0;         // of its request
  uint64_t opened = 0;         // larger: later; of no other candidate
};

struct Rules {
  uint64_t starving_after_ms = 0;  // requests of this age come last
  uint64_t typical_rows = 1;       // of a response that nothing is said of
};

// Rows that a response has to go. A prediction that has come out too small is doubled until it is
// not; without one it is `typical_rows`, likewise.
uint64_t RemainingRows(uint64_t predicted_rows, uint64_t response_rows);

// Indices into `candidates`, the first to be suspended first. Ranks stand for lengths that are
// spread evenly from none to twice the typical one. Where all else is equal, the one that was
// opened last is first. Cost: O(n log n).
std::vector<size_t> SuspensionOrder(std::span<const Candidate> candidates, const Rules& rules);

}  // namespace kvasir::preemption

#endif  // KVASIR_POLICIES_PREEMPTION_SUSPENSION_ORDER_H_
