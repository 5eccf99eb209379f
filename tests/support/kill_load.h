// What tests of SIGKILL do to a daemon until it is gone: prompts that are published, attached and
// evicted.
#ifndef KVASIR_TESTS_SUPPORT_KILL_LOAD_H_
#define KVASIR_TESTS_SUPPORT_KILL_LOAD_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "tests/support/tier_daemon.h"

namespace kvasir::testing {

inline constexpr uint64_t kKillPrompts = 40;

// A prompt of 350 to 749 tokens; four numbers in a row make prompts that begin alike. `number`:
// below kKillPrompts.
std::vector<uint32_t> KillPrompt(uint64_t number);

// What their rows are kept by: every fourth is compacted.
std::string KillRetention(uint64_t number);

// Publishes and attaches prompts until a call fails because the daemon is gone; what there is no
// room for is tried again. Counts its tries in `steps`. May run in several threads. Errors: those
// of the call that ended it; kDataLoss where rows are not as they were published.
absl::Status PublishAndAttach(const TierDaemon& daemon, uint64_t seed,
                              std::atomic<uint64_t>* steps);

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_KILL_LOAD_H_
