// DecodeQueue: a decode server whose memory does not hold all that asks for it, simulated, so that
// orders of suspension can be compared on a trace.
//
// Every request comes with its prompt's rows computed elsewhere and adds a row a step; a step has a
// fixed time, as memory bandwidth has it. Where the rows of all that run do not fit, some are
// suspended, and come back when there is room, for the time that their rows take. Who is suspended
// last is admitted first.
//
// Pure: one trace and one order give one result. Thread-safe.
#ifndef KVASIR_REPLAY_DECODE_QUEUE_H_
#define KVASIR_REPLAY_DECODE_QUEUE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/preemption/suspension_order.h"
#include "replay/trace.h"

namespace kvasir::replay {

struct DecodeRequest {
  uint64_t arrival_us = 0;
  uint64_t prompt_rows = 0;
  uint64_t response_rows = 1;  // at least 1
  preemption::Hints hints;
};

struct DecodeServer {
  uint64_t memory_rows = 0;
  uint64_t step_us = 25'000;
  double restore_rows_per_s = 200'000;  // of what was suspended; 128 KiB rows at 26 GB/s
  uint64_t starving_after_ms = 30'000;
};

struct DecodeResult {
  // From arrival to the last row, divided by the rows of the response (Yu et al., Orca, OSDI 2022).
  double mean_ms_a_row = 0, p50_ms_a_row = 0, p99_ms_a_row = 0;
  double longest_s = 0;  // from arrival to the last row
  double mean_s = 0;
  uint64_t suspensions = 0;  // of a sequence that had begun
};

// Requests are in the order of their arrival. Errors: kInvalidArgument for one that alone does not
// fit. Cost: O(steps * log(waiting)) and a sort of all that are there for each step in which some
// are admitted or suspended.
absl::StatusOr<DecodeResult> Decode(std::span<const DecodeRequest> requests,
                                    const DecodeServer& server);

// The requests of a trace without hints.
std::vector<DecodeRequest> DecodeRequestsOf(const Trace& trace);
// Memory in which the requests, all served at once, would have had `load` of what they want.
uint64_t MemoryRowsFor(std::span<const DecodeRequest> requests, double load, uint64_t step_us);

// Where predictions come from.
struct Predictor {
  std::string name;
  bool none = false;
  double noise = 0;      // standard deviation of the logarithm of a prediction
  bool by_rank = false;  // says where it stands, not how long it is
};
void Predict(const Predictor& predictor, uint64_t seed, std::span<DecodeRequest> requests);
std::optional<double> TauOf(std::span<const DecodeRequest> requests);

}  // namespace kvasir::replay

#endif  // KVASIR_REPLAY_DECODE_QUEUE_H_
