// Quality against bytes held as a picture, drawn by gnuplot.
//
// gnuplot is run without a shell, reads its script from memory and writes into a file that is open
// already: no path of the caller's is ever part of a script, where backquotes would be commands.
// Thread-safe.
#ifndef KVASIR_ENGINE_COMPARE_PLOT_H_
#define KVASIR_ENGINE_COMPARE_PLOT_H_

#include <span>
#include <string>

#include <absl/status/status.h>

#include "engine/compare_results.h"

namespace kvasir::engine {

// Whether Plot() could draw into `path`, for asking before long work. Cost: a start of gnuplot.
// Errors: kInvalidArgument unless `path` ends in .svg or .png, kFailedPrecondition without gnuplot.
absl::Status CheckPlot(const std::string& path);

// KL, logarithmic, over bytes held, of the summaries that have any KL, with their frontier. Makes
// the folders of `path`; an older file is replaced as a whole. What gnuplot says goes to standard
// error. Errors: those of CheckPlot(), kInvalidArgument where no summary has any KL, kUnavailable.
absl::Status Plot(std::span<const RetentionSummary> summaries, const std::string& path);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_COMPARE_PLOT_H_
