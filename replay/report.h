// What replays found: a table, JSON rows, a picture. Pure but for DrawResults(); thread-safe.
#ifndef KVASIR_REPLAY_REPORT_H_
#define KVASIR_REPLAY_REPORT_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "bench/report.h"
#include "replay/replay.h"

namespace kvasir::replay {

// All policies at one capacity.
struct Comparison {
  uint32_t capacity_blocks = 0;
  Result belady;
  Result infinite;
  std::vector<Result> policies;
};

// `block_bytes` 0: no bytes. Read: for prefix hits; written: what was stored.
std::string ResultTable(std::span<const Comparison> comparisons, uint32_t unique_blocks,
                        uint64_t block_bytes);

// One row for each policy and capacity, the future and the infinite cache among them; value: its
// block-hit ratio, reference: that of the future.
bench::Report ResultRows(std::span<const Comparison> comparisons, uint64_t block_bytes);

// Block-hit ratio over capacity, logarithmic. Errors: those of DrawPlot().
absl::Status DrawResults(std::span<const Comparison> comparisons, const std::string& path);

}  // namespace kvasir::replay

#endif  // KVASIR_REPLAY_REPORT_H_
