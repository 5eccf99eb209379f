#include "replay/report.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/gnuplot.h"

#include <fmt/format.h>

namespace kvasir::replay {
namespace {

constexpr int kPlotWidth = 1000, kPlotHeight = 600;

void AddRow(const Result& result, const Result& belady, uint64_t block_bytes,
            bench::Report& report) {
  bench::Row row;
  row.name = fmt::format("replay/{}/{}", result.eviction, result.capacity_blocks);
  row.value = result.block_hit_ratio();
  row.unit = "ratio";
  row.reference = belady.block_hit_ratio();
  row.better = bench::Better::kHigher;
  row.extra = {{"eviction", result.eviction},
               {"capacity_blocks", result.capacity_blocks},
               {"block_hit_ratio", result.block_hit_ratio()},
               {"prefix_hit_ratio", result.prefix_hit_ratio()},
               {"stored_blocks", result.stored},
               {"evicted_blocks", result.evicted},
               {"micros_per_access", result.micros_per_access()},
               {"metadata_bytes_per_block", result.metadata_per_block()}};
  if (block_bytes > 0) {
    row.extra["bytes_read"] = result.prefix_hits * block_bytes;
    row.extra["bytes_written"] = result.stored * block_bytes;
  }
  report.Add(std::move(row));
}

}  // namespace

std::string ResultTable(std::span<const Comparison> comparisons, uint32_t unique_blocks,
                        uint64_t block_bytes) {
  size_t width = std::string_view("eviction").size();
  for (const Comparison& comparison : comparisons) {
    for (const Result& result : comparison.policies) {
      width = std::max(width, result.eviction.size());
    }
  }
  std::string text = fmt::format("{:>9} {:>7}  {:<{}}  {:>9} {:>10} {:>7} {:>8} {:>9} {:>8}",
                                 "blocks", "unique", "eviction", width, "block hit", "prefix hit",
                                 "Belady", "infinite", "us/access", "B/block");
  if (block_bytes > 0) text += fmt::format(" {:>11} {:>11}", "read", "written");
  text += "\n";
  for (const Comparison& comparison : comparisons) {
    for (const Result& result : comparison.policies) {
      text += fmt::format(
          "{:>9} {:>6.1f}%  {:<{}}  {:>9.4f} {:>10.4f} {:>7.4f} {:>8.4f} {:>9.2f} {:>8.0f}",
          result.capacity_blocks, 100.0 * result.capacity_blocks / unique_blocks, result.eviction,
          width, result.block_hit_ratio(), result.prefix_hit_ratio(),
          comparison.belady.block_hit_ratio(), comparison.infinite.block_hit_ratio(),
          result.micros_per_access(), result.metadata_per_block());
      if (block_bytes > 0) {
        text += fmt::format(" {:>11} {:>11}", HumanBytes(result.prefix_hits * block_bytes),
                            HumanBytes(result.stored * block_bytes));
      }
      text += "\n";
    }
  }
  return text;
}

bench::Report ResultRows(std::span<const Comparison> comparisons, uint64_t block_bytes) {
  bench::Report report;
  for (const Comparison& comparison : comparisons) {
    for (const Result& result : comparison.policies) {
      AddRow(result, comparison.belady, block_bytes, report);
    }
    AddRow(comparison.belady, comparison.belady, block_bytes, report);
    AddRow(comparison.infinite, comparison.belady, block_bytes, report);
  }
  return report;
}

absl::Status DrawResults(std::span<const Comparison> comparisons, const std::string& path) {
  std::vector<std::pair<std::string, std::string>> lines;  // title, points
  const auto add = [&lines](const std::string& title, uint32_t capacity, const Result& result) {
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const auto& other) { return other.first == title; });
    if (line == lines.end()) line = lines.insert(lines.end(), {title, ""});
    line->second += fmt::format("{} {}\n", capacity, result.block_hit_ratio());
  };
  for (const Comparison& comparison : comparisons) {
    const uint32_t at = comparison.capacity_blocks;
    for (const Result& result : comparison.policies) add(result.eviction, at, result);
    add("Belady (knows the future)", at, comparison.belady);
    add("infinite cache", at, comparison.infinite);
  }
  std::string data, plots;
  for (size_t i = 0; i < lines.size(); ++i) {
    data += fmt::format("$p{} << EOD\n{}EOD\n", i, lines[i].second);
    plots += fmt::format("{}$p{} with linespoints lw 2 pt 7 ps 0.6 {}title {}", i == 0 ? "" : ", ",
                         i, i + 2 >= lines.size() ? "dt 2 lc rgb 'gray50' " : "",
                         GnuplotString(lines[i].first));
  }
  return DrawPlot(fmt::format("set logscale x\nset grid\nset xlabel 'capacity, blocks'\n"
                              "set ylabel 'block-hit ratio (higher is better)'\nset yrange [0:*]\n"
                              "set key outside right top noenhanced samplen 2\n{}plot {}\n",
                              data, plots),
                  kPlotWidth, kPlotHeight, path);
}

}  // namespace kvasir::replay
