// VerbTrial: what an engine's call asks of the core, which is tried until it is done.
#ifndef KVASIR_DAEMON_CONTROL_VERB_TRIAL_H_
#define KVASIR_DAEMON_CONTROL_VERB_TRIAL_H_

#include <string>

#include <absl/functional/any_invocable.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "daemon/core/session.h"

namespace kvasir {

struct VerbTrial {
  // Under the core's lock. Sets *done to false where it has to wait for progress.
  absl::AnyInvocable<absl::Status(core::Session&, bool* done)> verb;
  // Before the answer goes, without the lock. May be empty.
  absl::AnyInvocable<void(const absl::Status&)> at_end;
  absl::StatusOr<core::SessionToken> token = core::SessionToken{};
  Instant deadline{};
  Instant wake = Instant::max();  // it is tried then, too; the verb may change it
  int looks = 0;
  std::string tenant;  // once it is known
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_VERB_TRIAL_H_
