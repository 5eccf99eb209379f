// The client's part of a decode step, for batches of sequences.
#ifndef KVASIR_BENCH_SCALE_STEPS_H_
#define KVASIR_BENCH_SCALE_STEPS_H_

#include <absl/status/status.h>

#include "bench/report.h"
#include "bench/scale_engine.h"

namespace kvasir::bench {

// What the client does of a decode step between two block borders, what it does behind one, and how
// many calls there are; for rows that are there at the commit, and for commits ahead of a stream.
// The steps between two borders are timed together, so that reading the clock is no part. Leaves
// the engine without sequences. Errors: those of Sequence.
absl::Status AddSteps(Engine& engine, Report* report);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_SCALE_STEPS_H_
