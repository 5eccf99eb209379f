#include "replay/program.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "base/gnuplot.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "eviction/eviction_registry.h"
#include "replay/report.h"

#include <fmt/format.h>

namespace kvasir::replay {
namespace {

// One line on a terminal that is written over and wiped at the end; nothing elsewhere.
class Progress {
 public:
  explicit Progress(size_t replays) : replays_(replays) {}
  ~Progress() {
    if (terminal_) fmt::print(stderr, "\r\x1b[K");
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  absl::StatusOr<Result> Replay(const Trace& trace, const std::string& eviction,
                                uint32_t capacity) {
    const auto show = [&](double share) {
      fmt::print(stderr, "\r\x1b[K{:3.0f}%  {} at {} blocks",
                 100 * (static_cast<double>(done_) + share) / static_cast<double>(replays_),
                 eviction, capacity);
      std::fflush(stderr);
    };
    auto result = replay::Replay(trace, eviction, capacity,
                                 terminal_ ? std::function<void(double)>(show) : nullptr);
    ++done_;
    return result;
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const size_t replays_;
  size_t done_ = 0;
};

absl::StatusOr<Trace> ReadTrace(const std::string& path, uint32_t block_tokens) {
  std::ifstream file(path);
  if (!file) return ErrnoStatus(errno, "open of the trace path=" + path);
  return Trace::Read(file, block_tokens);
}

}  // namespace

absl::Status Run(const ProgramOptions& options, std::ostream& out) {
  if (!options.plot_path.empty()) KVASIR_RETURN_IF_ERROR(CheckPlot(options.plot_path));
  std::vector<std::string> evictions = options.evictions;
  if (evictions.empty()) {
    evictions.assign(eviction::EvictionNames().begin(), eviction::EvictionNames().end());
  }
  for (const std::string& name : evictions) {
    KVASIR_RETURN_IF_ERROR(eviction::MakeEviction(name, 1).status());
  }
  std::stable_partition(evictions.begin(), evictions.end(),
                        [](const std::string& name) { return name == eviction::kDefaultEviction; });
  KVASIR_ASSIGN_OR_RETURN(const Trace trace, ReadTrace(options.path, options.block_tokens));
  std::vector<Comparison> comparisons;
  for (const std::string& text : options.capacities) {
    comparisons.emplace_back();
    KVASIR_ASSIGN_OR_RETURN(comparisons.back().capacity_blocks,
                            ParseCapacity(text, trace.unique_blocks()));
  }
  if (trace.unique_blocks() > eviction::kCapacityMax) {
    return InvalidArgument("trace has too many different blocks: unique_blocks={} max={}",
                           trace.unique_blocks(), eviction::kCapacityMax);
  }
  {
    Progress progress(1 + comparisons.size() * (1 + evictions.size()));
    KVASIR_ASSIGN_OR_RETURN(const Result infinite,
                            progress.Replay(trace, kInfinite, trace.unique_blocks()));
    for (Comparison& comparison : comparisons) {
      const uint32_t capacity = comparison.capacity_blocks;
      comparison.infinite = infinite;
      for (const std::string& name : evictions) {
        KVASIR_ASSIGN_OR_RETURN(Result result, progress.Replay(trace, name, capacity));
        comparison.policies.push_back(std::move(result));
      }
      KVASIR_ASSIGN_OR_RETURN(comparison.belady,
                              progress.Replay(trace, eviction::kBelady, capacity));
    }
  }
  if (options.json) {
    out << ResultRows(comparisons, options.block_bytes).ToJson().dump(1) << "\n";
  } else {
    out << fmt::format("{} requests, {} block accesses, {} different blocks of {} tokens\n",
                       trace.requests(), trace.accesses().size(), trace.unique_blocks(),
                       trace.block_tokens())
        << ResultTable(comparisons, trace.unique_blocks(), options.block_bytes);
  }
  if (options.plot_path.empty()) return absl::OkStatus();
  return DrawResults(comparisons, options.plot_path);
}

}  // namespace kvasir::replay
