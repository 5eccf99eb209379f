// What kvasir-replay does once its command line is read. Thread-compatible.
#ifndef KVASIR_REPLAY_PROGRAM_H_
#define KVASIR_REPLAY_PROGRAM_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "replay/replay.h"

namespace kvasir::replay {

struct ProgramOptions {
  std::string path;
  std::vector<std::string> capacities = {"1%", "2%", "5%", "10%", "20%", "30%", "50%"};
  std::vector<std::string> evictions;  // empty: all, the default first
  uint32_t block_tokens = 512;
  uint64_t block_bytes = 0;  // 0: bytes read and written are not shown
  bool json = false;
  std::string plot_path;  // empty: no plot
};

// Replays every policy at every capacity, beside the future and a cache in which all fits, and
// writes a table or JSON rows to `out`; progress goes to standard error where that is a terminal.
// What is wrong with the options is said before anything is replayed. Errors: kInvalidArgument,
// kNotFound for the file, those of CheckPlot() and DrawPlot().
absl::Status Run(const ProgramOptions& options, std::ostream& out);

}  // namespace kvasir::replay

#endif  // KVASIR_REPLAY_PROGRAM_H_
