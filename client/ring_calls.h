// Calls of a session that go through its command ring. Private to client/.
#ifndef KVASIR_CLIENT_RING_CALLS_H_
#define KVASIR_CLIENT_RING_CALLS_H_

#include <cstdint>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/session.h"
#include "client/session_state.h"

namespace kvasir {

// Opens the ring in the session's segments, where the options do not say otherwise. Errors:
// kDataLoss for one that does not fit the segments.
absl::Status OpenRing(SessionState& state, const ConnectOptions& options);

// There is a ring, and its payloads have room for the prompt.
bool FitsRing(const SessionState& state, const PrefixOptions& prefix);
// REQUIRES: FitsRing(). Errors: as Session::MatchPrefix().
absl::StatusOr<std::vector<PrefixForm>> MatchByRing(SessionState& state, uint32_t model_id,
                                                    const PrefixOptions& prefix, bool prefetch);

}  // namespace kvasir

#endif  // KVASIR_CLIENT_RING_CALLS_H_
