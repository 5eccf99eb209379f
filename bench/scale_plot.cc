#include "bench/scale_plot.h"

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/gnuplot.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

// "scale/private_memory/1000 sessions": lines of "1000 value" of the rows so named.
std::string PointsOf(const Report& report, std::string_view what, std::string_view of,
                     double divisor) {
  std::string points;
  for (const Row& row : report.rows()) {
    if (!row.name.starts_with(fmt::format("scale/{}/", what)) || !row.name.ends_with(of)) continue;
    const double count = std::atof(row.name.c_str() + row.name.rfind('/') + 1);
    if (count > 0 && row.value > 0) points += fmt::format("{} {}\n", count, row.value / divisor);
  }
  return points;
}

}  // namespace

absl::Status DrawScale(const Report& report, const std::string& json_path) {
  struct Line {
    std::string_view what, of;
    double divisor;
    std::string_view title;
  };
  constexpr Line kMemory[] = {{"private_memory", " sessions", 1024, "a session"},
                              {"private_memory", " sequences", 1024, "a sequence"},
                              {"private_memory", " blocks", 1024, "a thousand cached blocks"}};
  constexpr Line kCalls[] = {{"ring_call", " sessions", 1, "ring, beside sessions"},
                             {"ring_call", " sequences", 1, "ring, beside sequences"},
                             {"grpc_call", " sessions", 1, "gRPC, beside sessions"},
                             {"grpc_call", " sequences", 1, "gRPC, beside sequences"}};
  std::string data;
  int blocks = 0;
  const auto plot = [&](const auto& lines) {
    std::string plotted;
    for (const Line& line : lines) {
      const std::string points = PointsOf(report, line.what, line.of, line.divisor);
      if (points.empty()) continue;
      data += fmt::format("$d{} << EOD\n{}EOD\n", blocks, points);
      plotted += fmt::format("{}$d{} using 1:2 with linespoints lw 2 title {}",
                             plotted.empty() ? "plot " : ", ", blocks,
                             GnuplotString(std::string(line.title)));
      ++blocks;
    }
    return plotted;
  };
  const std::string memory = plot(kMemory), calls = plot(kCalls);
  const std::string script = fmt::format(
      "set termoption noenhanced\n{}set multiplot layout 2,1\nset logscale x\nset grid\nset key "
      "outside right\n"
      "set format x '%.0f'\nset xlabel 'how many there are'\nset logscale y\n"
      "set ylabel 'private memory of the daemon, KiB'\n{}\nunset logscale y\nset yrange [0:*]\n"
      "set ylabel 'a call, us'\n{}\nunset multiplot\n",
      data, memory, calls);
  const std::string path = std::filesystem::path(json_path).replace_extension(".svg").string();
  return DrawPlot(script, 900, 700, path);
}

}  // namespace kvasir::bench
