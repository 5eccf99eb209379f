// Pictures drawn by gnuplot, a program that need not be there.
//
// gnuplot is run without a shell, reads its script from memory and writes into a file that is open
// already: no path of the caller's is ever part of a script, where backquotes would be commands.
// Thread-safe.
#ifndef KVASIR_BASE_GNUPLOT_H_
#define KVASIR_BASE_GNUPLOT_H_

#include <string>

#include <absl/status/status.h>

namespace kvasir {

// Whether DrawPlot() could draw into `path`, for asking before long work. Cost: a start of gnuplot.
// Errors: kInvalidArgument unless `path` ends in .svg or .png, kFailedPrecondition without gnuplot.
absl::Status CheckPlot(const std::string& path);

// Draws what `script` plots, of `width` x `height` pixels; the terminal is set already. Makes the
// folders of `path`; an older file is replaced as a whole. What gnuplot says goes to standard
// error. Errors: those of CheckPlot(), kUnavailable.
absl::Status DrawPlot(const std::string& script, int width, int height, const std::string& path);

// A string of gnuplot in single quotes, where nothing but a quote has a meaning. What is not
// printable ASCII becomes '?'.
std::string GnuplotString(const std::string& text);

}  // namespace kvasir

#endif  // KVASIR_BASE_GNUPLOT_H_
