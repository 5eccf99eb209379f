// A report's ratios as a picture: a bar for each row that has one, on a logarithmic axis.
#ifndef KVASIR_BENCH_RATIO_PLOT_H_
#define KVASIR_BENCH_RATIO_PLOT_H_

#include <string>

#include <absl/status/status.h>

#include "bench/report.h"

namespace kvasir::bench {

// Next to a report at `json_path`, with .svg instead of .json. Errors: as DrawPlot()
// (base/gnuplot.h).
absl::Status DrawRatios(const Report& report, const std::string& title,
                        const std::string& json_path);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_RATIO_PLOT_H_
