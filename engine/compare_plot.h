// Quality against bytes held as a picture, drawn by gnuplot (base/gnuplot.h). Thread-safe.
#ifndef KVASIR_ENGINE_COMPARE_PLOT_H_
#define KVASIR_ENGINE_COMPARE_PLOT_H_

#include <span>
#include <string>

#include <absl/status/status.h>

#include "engine/compare_results.h"

namespace kvasir::engine {

// KL, logarithmic, over bytes held, of the summaries that have any KL, with their frontier. Errors:
// those of DrawPlot(), kInvalidArgument where no summary has any KL.
absl::Status Plot(std::span<const RetentionSummary> summaries, const std::string& path);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_COMPARE_PLOT_H_
