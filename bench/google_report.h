// Runs the Google Benchmark cases of a program and writes them as rows of the common report.
#ifndef KVASIR_BENCH_GOOGLE_REPORT_H_
#define KVASIR_BENCH_GOOGLE_REPORT_H_

#include <functional>

#include <benchmark/benchmark.h>

#include "bench/report.h"

namespace kvasir::bench {

// Makes the row of a finished case.
using RowMaker = std::function<Row(const benchmark::BenchmarkReporter::Run&)>;

// A case's time becomes `value` (ns for one iteration). A counter named of_X (time of X / own time,
// in the same run) gives `reference`, the time of X. Other counters become fields of the row. The
// JSON goes to $KVASIR_BENCH_JSON or build/bench/`name`.json. Returns the exit code of the program.
int RunGoogleBenchmarks(int argc, char** argv, const char* name);

// The same with rows of the program's own making.
int RunGoogleBenchmarks(int argc, char** argv, const char* name, const RowMaker& make_row);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_GOOGLE_REPORT_H_
