// Waiting for a word of shared memory to change. Shared between processes; the waiter may have the
// word mapped read-only.
#ifndef KVASIR_RING_FUTEX_H_
#define KVASIR_RING_FUTEX_H_

#include <chrono>
#include <cstdint>

#include "proto/shm/layout.h"

namespace kvasir::ring {

enum class FutexWaited { kWoken, kTimedOut };

// Returns kTimedOut after `at_most`; else, sooner or later and also for no reason, kWoken. Does not
// sleep if the word is not `seen` any more.
FutexWaited FutexWait(const shm::A32& word, uint32_t seen, std::chrono::nanoseconds at_most);

// Wakes whoever waits. Never blocks.
void FutexWake(shm::A32& word);

}  // namespace kvasir::ring

#endif  // KVASIR_RING_FUTEX_H_
