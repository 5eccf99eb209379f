// Calls of a session that go through its command ring, where it has one. Private to client/.
#ifndef KVASIR_CLIENT_RING_CALLS_H_
#define KVASIR_CLIENT_RING_CALLS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/session.h"
#include "client/session_state.h"
#include "proto/shm/command_payload.h"

namespace kvasir {

// Opens the ring in the session's segments, where the options do not say otherwise. Errors:
// kDataLoss for one that does not fit the segments.
absl::Status OpenRing(SessionState& state, const ConnectOptions& options);

// There is a ring, and its payloads have room for the prompt.
bool FitsRing(const SessionState& state, const PrefixOptions& prefix);
// REQUIRES: FitsRing(). Errors: as Session::MatchPrefix().
absl::StatusOr<std::vector<PrefixForm>> MatchByRing(SessionState& state, uint32_t model_id,
                                                    const PrefixOptions& prefix, bool prefetch);

// How many sequences one SyncMany() may ask for: 1 to shm::kSyncNeedsMax.
size_t SyncNeedsMax(const SessionState& state);
// Sync of many sequences in one call, by gRPC where there is no ring. Fills in `results`, one for
// each need; their codes have no text. REQUIRES: at most SyncNeedsMax() needs, as many results.
// Errors: of the call; kDeadlineExceeded where any of them is still waiting.
absl::Status SyncMany(SessionState& state, std::span<const shm::SyncNeedRecord> needs,
                      std::span<shm::SyncResultRecord> results);

}  // namespace kvasir

#endif  // KVASIR_CLIENT_RING_CALLS_H_
