// What `kvasir-replay --hints` does: how much sooner requests are answered where engines say how
// long their responses will be, for predictors from exact to useless.
#ifndef KVASIR_REPLAY_HINTS_PROGRAM_H_
#define KVASIR_REPLAY_HINTS_PROGRAM_H_

#include <ostream>
#include <string>

#include <absl/status/status.h>

namespace kvasir::replay {

struct HintsOptions {
  std::string path;
  double load = 0.9;  // of what the requests want of the memory, on the average
  bool json = false;
};

// Writes a table or JSON rows to `out`. Errors: kInvalidArgument, kNotFound for the file.
absl::Status RunHints(const HintsOptions& options, std::ostream& out);

}  // namespace kvasir::replay

#endif  // KVASIR_REPLAY_HINTS_PROGRAM_H_
