#include "bench/google_report.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/error.h"
#include "bench/report.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

// The time of an iteration, and references by the counters named of_X.
Row TimeRow(const benchmark::BenchmarkReporter::Run& run) {
  Row row;
  row.name = run.benchmark_name();
  row.value = run.real_accumulated_time / static_cast<double>(run.iterations) * 1e9;
  row.unit = "ns";
  row.extra = nlohmann::ordered_json::object();
  for (const auto& [name, counter] : run.counters) {
    const double value = counter;
    if (name.starts_with("of_")) {
      row.reference = row.value * value;
      row.extra["reference_name"] = name.substr(3);
    } else {
      row.extra[name] = value;
    }
  }
  return row;
}

class RowsReporter final : public benchmark::ConsoleReporter {
 public:
  explicit RowsReporter(const RowMaker& make_row) : make_row_(make_row) {}

  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      if (run.error_occurred || run.run_type != Run::RT_Iteration) continue;
      report.Add(make_row_(run));
    }
  }

  Report report;

 private:
  const RowMaker& make_row_;
};

}  // namespace

int RunGoogleBenchmarks(int argc, char** argv, const char* name) {
  return RunGoogleBenchmarks(argc, argv, name, TimeRow);
}

int RunGoogleBenchmarks(int argc, char** argv, const char* name, const RowMaker& make_row) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  RowsReporter reporter(make_row);
  benchmark::RunSpecifiedBenchmarks(&reporter);
  const char* path = std::getenv("KVASIR_BENCH_JSON");
  const absl::Status written =
      reporter.report.Write(path != nullptr ? path : fmt::format("build/bench/{}.json", name));
  if (!written.ok()) std::fprintf(stderr, "%s\n", MessageOf(written).c_str());
  return written.ok() ? 0 : 1;
}

}  // namespace kvasir::bench
