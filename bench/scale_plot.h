// What bench_scale found as a picture: the daemon's memory and a call's time by how many there are.
#ifndef KVASIR_BENCH_SCALE_PLOT_H_
#define KVASIR_BENCH_SCALE_PLOT_H_

#include <string>

#include <absl/status/status.h>

#include "bench/report.h"

namespace kvasir::bench {

// Next to the report at `json_path`, with .svg instead of .json. Errors: as DrawPlot()
// (base/gnuplot.h).
absl::Status DrawScale(const Report& report, const std::string& json_path);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_SCALE_PLOT_H_
