// System calls of the engine's decode steps between two block borders, on private memory and on a
// daemon's, counted by strace.
#ifndef KVASIR_BENCH_ENGINE_SYSTEM_CALLS_H_
#define KVASIR_BENCH_ENGINE_SYSTEM_CALLS_H_

#include <string>

#include <absl/status/status.h>

#include "bench/report.h"

namespace kvasir::bench {

// Has strace run this program with kWalkOption, once for each memory, and adds a row for each
// system call of the thread that computes, and one for all of them. Errors: kNotFound without
// strace, kInternal.
absl::Status CountSystemCalls(const std::string& model, Report& report);

// The steps, with a mark in front of them and behind them. `memory`: "private" or "kvasir".
inline constexpr char kWalkOption[] = "--walk";
absl::Status Walk(const std::string& model, const std::string& memory);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_ENGINE_SYSTEM_CALLS_H_
