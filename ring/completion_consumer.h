// CompletionConsumer: the engine's end of the completion ring.
//
// It reads `cq_tail` (acquire), then the entry, once, into a copy that is judged; then `cq_head`
// (release) gives entry and answer back. To sleep it writes `cq_need_wake` = 1, full fence, looks
// at the tail again, and only then waits on the tail as a futex, a slice at a time.
//
// Nothing of the daemon is trusted to make sense, because a daemon that died, or its successor's
// bug, may have left anything: every word is bounded before it is used, no offset leaves the answer
// area, no wait is longer than its deadline, and after each slice that passed in vain the caller is
// asked whether the peer is gone. Completions that were written before its death are still read.
//
// Thread-safety: one thread at a time, which may be another one than SubmissionProducer's. No
// allocation after construction.
#ifndef KVASIR_RING_COMPLETION_CONSUMER_H_
#define KVASIR_RING_COMPLETION_CONSUMER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "ring/ring_credit.h"
#include "ring/ring_memory.h"

namespace kvasir::ring {

struct WaitOptions {
  std::chrono::nanoseconds spin{20'000};  // looks so long before it sleeps; 0: sleeps at once
  std::chrono::milliseconds slice{50};    // of sleep, until peer_is_gone is asked
  std::function<bool()> peer_is_gone;     // e.g. the data socket is hung up
};

// A completion, copied and judged.
struct Completion {
  shm::CompletionEntry entry{};
  // The answer's bytes, or of a failure its text. Valid until Done(). `to` has entry.answer_bytes.
  void CopyAnswer(std::span<std::byte> to) const;

  const std::byte* area = nullptr;
  uint32_t area_bytes = 0;
};

class CompletionConsumer {
 public:
  // `memory` and `credit` must outlive it. REQUIRES: options.peer_is_gone is set.
  CompletionConsumer(const EngineRingMemory& memory, RingCredit& credit, WaitOptions options);
  CompletionConsumer(const CompletionConsumer&) = delete;
  CompletionConsumer& operator=(const CompletionConsumer&) = delete;

  // The oldest completion that is not done with; false: there is none now. Errors: kDataLoss naming
  // the word or field and its bound; the session is of no use then.
  absl::StatusOr<bool> Next(Completion* completion);
  // Done with the one that Next() gave last: its entry and its answer are the daemon's again.
  void Done();

  // Waits until Next() has something to say. Errors: kDeadlineExceeded, kUnavailable (the peer is
  // gone), kDataLoss.
  absl::Status Wait(Instant deadline);

 private:
  absl::StatusOr<bool> Look();
  absl::Status Sleep(Instant deadline);

  const EngineRingMemory& memory_;
  RingCredit& credit_;
  const WaitOptions options_;
  uint32_t head_;             // of the next completion to read
  uint32_t tail_;             // of the daemon, as last seen
  uint32_t answer_room_ = 0;  // of what Next() gave
  bool given_ = false;        // Next() gave one, and Done() was not called
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_COMPLETION_CONSUMER_H_
