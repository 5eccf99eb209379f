// The doorbell: how an engine wakes a daemon that sleeps in epoll.
//
// An eventfd whose counter the daemon never reads or writes. Its open file is shared with the
// engine, which could make it blocking, fill it or empty it; what the daemon relies on is only that
// a write gives an edge, and an edge that an engine can forge costs one look at its ring.
#ifndef KVASIR_RING_DOORBELL_H_
#define KVASIR_RING_DOORBELL_H_

#include <cstdint>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir::ring {

// Made by the daemon; the engine gets the descriptor.
absl::StatusOr<UniqueFd> MakeDoorbell();

// Has `epoll` report an event with `data` for every ring, those before this call included.
absl::Status WatchDoorbell(int epoll, int doorbell, uint64_t data);

// For the engine. One system call, a microsecond or less. Errors: kDeadlineExceeded where the
// counter is full, which no ring of an honest engine ever makes it.
absl::Status RingDoorbell(int doorbell);

}  // namespace kvasir::ring

#endif  // KVASIR_RING_DOORBELL_H_
