#include "bench/ratio_plot.h"

#include <filesystem>
#include <vector>

#include "base/gnuplot.h"

#include <fmt/format.h>

namespace kvasir::bench {

absl::Status DrawRatios(const Report& report, const std::string& title,
                        const std::string& json_path) {
  std::string data, labels;
  int bars = 0;
  for (const Row& row : report.rows()) {
    if (!row.reference || *row.reference <= 0 || row.value <= 0) continue;
    std::string reference = row.reference_name;
    if (reference.empty() && row.extra.is_object()) {
      reference = row.extra.value("reference_name", std::string());
    }
    const std::string label = reference.empty() ? row.name : row.name + " / " + reference;
    data += fmt::format("{} {}\n", bars, row.value / *row.reference);
    labels += fmt::format("{}{} {}", bars == 0 ? "" : ", ", GnuplotString(label), bars);
    ++bars;
  }
  const std::string script = fmt::format(
      "set termoption noenhanced\nset title {}\n$d << EOD\n{}EOD\nset style fill solid 0.6\nset "
      "logscale x\nset grid x\n"
      "set xlabel 'time / time of the reference'\nset ytics ({}) nomirror\nset yrange [{}:-1]\n"
      "unset key\nset arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc rgb 'gray40'\n"
      "plot $d using 2:1:(1):2:($1-0.35):($1+0.35) with boxxyerror lc rgb '#3366aa'\n",
      GnuplotString(title), data, labels, bars);
  const std::string path = std::filesystem::path(json_path).replace_extension(".svg").string();
  return DrawPlot(script, 900, 80 + 26 * bars, path);
}

}  // namespace kvasir::bench
