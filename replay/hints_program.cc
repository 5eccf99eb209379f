#include "replay/hints_program.h"

#include <errno.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "bench/report.h"
#include "replay/decode_queue.h"

#include <fmt/format.h>

namespace kvasir::replay {
namespace {

constexpr uint64_t kSeed = 20240917;
constexpr uint32_t kBlockTokens = 512;

}  // namespace

absl::Status RunHints(const HintsOptions& options, std::ostream& out) {
  std::ifstream file(options.path);
  if (!file) return ErrnoStatus(errno, "open of the trace path=" + options.path);
  KVASIR_ASSIGN_OR_RETURN(const Trace trace, Trace::Read(file, kBlockTokens));
  std::vector<DecodeRequest> requests = DecodeRequestsOf(trace);
  if (requests.empty()) return InvalidArgument("the trace has no request");
  DecodeServer server;
  server.memory_rows = MemoryRowsFor(requests, options.load, server.step_us);
  const std::vector<Predictor> predictors = {
      {"nothing said", true},   {"exact"},
      {"noise .3", false, 0.3}, {"noise .6", false, 0.6},
      {"noise 1", false, 1.0},  {"noise 1, ranks", false, 1.0, true},
      {"noise 2", false, 2.0},  {"useless", false, 8.0}};
  bench::Report report;
  std::optional<DecodeResult> before;
  for (const Predictor& predictor : predictors) {
    Predict(predictor, kSeed, requests);
    KVASIR_ASSIGN_OR_RETURN(const DecodeResult result, Decode(requests, server));
    if (!before) before = result;
    const std::optional<double> tau = TauOf(requests);
    bench::Row row;
    row.name = predictor.name;
    row.value = result.mean_ms_a_row;
    row.unit = "ms a row";
    row.reference = before->mean_ms_a_row;
    row.reference_name = "nothing said";
    const auto rounded = [](double value, double unit) { return std::round(value / unit) * unit; };
    row.extra = {{"kendall_tau", tau ? nlohmann::ordered_json(rounded(*tau, .001)) : nullptr},
                 {"p50_ms_a_row", rounded(result.p50_ms_a_row, .1)},
                 {"p99_ms_a_row", rounded(result.p99_ms_a_row, .1)},
                 {"mean_s", rounded(result.mean_s, .01)},
                 {"longest_s", rounded(result.longest_s, .1)},
                 {"suspensions", result.suspensions}};
    report.Add(std::move(row));
  }
  if (options.json) {
    out << report.ToJson().dump(1) << "\n";
  } else {
    out << fmt::format("{} requests, memory of {} rows, {} ms a step\n", requests.size(),
                       server.memory_rows, server.step_us / 1000)
        << report.ToTable();
  }
  return absl::OkStatus();
}

}  // namespace kvasir::replay
