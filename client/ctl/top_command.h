// kvasirctl top: asks again and again, and shows what changed.
#ifndef KVASIR_CLIENT_CTL_TOP_COMMAND_H_
#define KVASIR_CLIENT_CTL_TOP_COMMAND_H_

#include <functional>
#include <ostream>

#include <absl/status/statusor.h>

#include "client/ctl/command_line.h"
#include "client/ctl/top_screen.h"
#include "kvasir/v1/admin.pb.h"

namespace kvasir::ctl {

using StatsFunction = std::function<absl::StatusOr<v1::GetStatsResponse>()>;

// On the terminal where line.live says so, until a key or a signal ends it; there a failed call is
// shown and tried again. Else writes line.count tables or JSON objects, one an interval (0: until
// it is stopped), the first after one interval. Errors: those of `stats`, of the terminal, and
// kUnavailable when `out` cannot be written.
absl::Status RunTop(const CommandLine& line, const StatsFunction& stats, std::ostream& out);

// The part of it that has a screen.
absl::Status RunTopOn(TopScreen& screen, const CommandLine& line, const StatsFunction& stats);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_TOP_COMMAND_H_
