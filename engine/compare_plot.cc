#include "engine/compare_plot.h"

#include <vector>

#include "base/error.h"
#include "base/gnuplot.h"
#include "engine/compare_score.h"

#include <fmt/format.h>

namespace kvasir::engine {
namespace {

std::string ScriptFor(std::span<const RetentionSummary> summaries) {
  std::vector<double> held, kl;
  std::string data, plots;
  // Points carry numbers; the names, which are long, stand beside the picture.
  for (const RetentionSummary& row : summaries) {
    if (!(row.kl > 0)) continue;  // full retention itself: nothing on a logarithmic axis
    held.push_back(100 * row.held_ratio);
    kl.push_back(row.kl);
    const size_t number = held.size();
    data += fmt::format("$p{} << EOD\n{} {}\nEOD\n", number, held.back(), row.kl);
    plots += fmt::format(
        ", $p{0} with points pt 7 ps 0.9 title {1}, $p{0} using 1:2:('{0}') with labels "
        "left offset 0.7,0.5 notitle",
        number, GnuplotString(fmt::format("{}  {}", number, row.retention)));
  }
  if (held.empty()) return "";
  data += "$line << EOD\n";
  for (const size_t i : Frontier(held, kl)) data += fmt::format("{} {}\n", held[i], kl[i]);
  data += "EOD\n";
  return fmt::format(
      "set logscale y\nset grid\n"
      "set xlabel 'bytes held, % of full retention as written'\n"
      "set ylabel 'KL to full retention, nats (lower is better)'\nset xrange [0:*]\n"
      "set key outside right top noenhanced font ',10' samplen 1\n{}"
      "plot $line with lines lw 2 lc rgb 'gray40' title 'frontier'{}\n",
      data, plots);
}

}  // namespace

absl::Status Plot(std::span<const RetentionSummary> summaries, const std::string& path) {
  const std::string script = ScriptFor(summaries);
  if (script.empty()) return InvalidArgument("nothing differs from full retention: path={}", path);
  return DrawPlot(script, 1500, 650, path);
}

}  // namespace kvasir::engine
