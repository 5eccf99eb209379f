// SubmissionProducer: the engine's end of the submission ring.
//
// What it writes, in this order: payload, entry, `sq_tail` (release), full fence; then it reads
// `sq_need_wake` and rings the doorbell if the daemon asks for it. An entry exists once the tail
// names it: an engine that dies before leaves nothing, and one that dies after, or before it rang,
// is seen to hang up.
//
// It submits only what the daemon can answer without waiting: fewer submissions without completion
// than the completion ring has entries, and room in the answer area for the answers of all. So an
// honest engine never meets back-pressure, and the daemon never has to ring after a completion was
// read.
//
// What it reads of the daemon is `sq_head` alone, bounded by what was submitted. Thread-safety:
// one thread at a time, which may be another one than CompletionConsumer's. No allocation after
// construction. Cost: one copy of the payload, two cache lines, a fence; a system call only where
// the daemon sleeps.
#ifndef KVASIR_RING_SUBMISSION_PRODUCER_H_
#define KVASIR_RING_SUBMISSION_PRODUCER_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "ring/area_ledger.h"
#include "ring/ring_credit.h"
#include "ring/ring_memory.h"

namespace kvasir::ring {

enum class Bell {
  kRing,   // wakes a daemon that sleeps
  kLater,  // more follows: nobody may wait for this one before Ring(), or a Submit() that rings
};

class SubmissionProducer {
 public:
  // `memory` and `credit` must outlive it; `doorbell` stays the caller's.
  SubmissionProducer(const EngineRingMemory& memory, RingCredit& credit, int doorbell);
  SubmissionProducer(const SubmissionProducer&) = delete;
  SubmissionProducer& operator=(const SubmissionProducer&) = delete;

  // Submits `command` with its payload in pieces, one behind the other; payload_off, payload_bytes
  // and reserved fields are set here. False: there is no room until another completion was read.
  // Errors: kInvalidArgument (payload or answer longer than the ring allows), kDataLoss (the
  // daemon's head is impossible), the doorbell's; after the last two the session is of no use.
  absl::StatusOr<bool> Submit(const shm::SubmissionEntry& command,
                              std::span<const std::span<const std::byte>> payload,
                              Bell bell = Bell::kRing);
  absl::StatusOr<bool> Submit(const shm::SubmissionEntry& command, Bell bell = Bell::kRing) {
    return Submit(command, {}, bell);
  }

  // Wakes the daemon if it asks for it; for what was submitted with kLater. Errors: the doorbell's.
  absl::Status Ring();

 private:
  absl::Status ObserveHead();

  const EngineRingMemory& memory_;
  RingCredit& credit_;
  const int doorbell_;
  AreaLedger payloads_;
  uint32_t tail_;  // of the next entry
  uint32_t head_;  // of the daemon, as last seen
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_SUBMISSION_PRODUCER_H_
