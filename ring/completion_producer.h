// CompletionProducer: the daemon's end of the completion ring.
//
// What it writes, in this order: answer, entry, `cq_tail` (release), full fence; then it reads
// `cq_need_wake` and wakes the engine's futex if that asks for it. Nothing here waits or allocates,
// and the wake-up cannot block.
//
// Room is taken when a submission is (SubmissionConsumer::Take), for its entry and the longest
// answer that the engine said; so every command that was taken can be completed at any time and in
// any order, and nothing is ever queued. The engine gives room back by `cq_head`, which is read
// only where room is short, and judged: it may only go forward, and not beyond what was completed.
//
// Thread-safety: none. Calls of this object and of the session's SubmissionConsumer are serialised
// by one lock or one thread.
#ifndef KVASIR_RING_COMPLETION_PRODUCER_H_
#define KVASIR_RING_COMPLETION_PRODUCER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/status/status.h>

#include "ring/area_ledger.h"
#include "ring/ring_memory.h"

namespace kvasir::ring {

// The right to complete one command, once.
struct CompletionTicket {
  uint64_t user_data = 0;
  uint32_t answer_bytes_max = 0;
};

struct Answer {
  std::array<uint64_t, 3> result{};
  std::span<const std::byte> bytes = {};
};

class CompletionProducer {
 public:
  // `memory` must outlive it.
  explicit CompletionProducer(const DaemonRingMemory& memory);
  CompletionProducer(const CompletionProducer&) = delete;
  CompletionProducer& operator=(const CompletionProducer&) = delete;

  // An answer that is longer than the ticket's room becomes kOutOfRange, with the bytes that it
  // needs as the detail.
  void Complete(const CompletionTicket& ticket, const Answer& answer);
  // REQUIRES: !status.ok(). Its text is cut at shm::kRingErrorTextBytesMax.
  void Fail(const CompletionTicket& ticket, const absl::Status& status, uint32_t retry_ms = 0);

  // Commands taken and not completed; at most the ring's entries.
  uint32_t pending() const { return pending_; }
  // Completions that the engine has not read, as far as is known.
  uint32_t unread() const { return tail_ - head_; }

 private:
  friend class SubmissionConsumer;

  // Reads `cq_head` once and judges it. Errors: kInvalidArgument naming bounds, a violation.
  absl::Status ObserveHead();
  // Room for one completion more, with so much of the answer area.
  bool HasRoom(uint32_t answer_room) const {
    return pending_ + unread() < memory_.geometry.completion_entries &&
           reserved_ + answer_room <= answers_.free_bytes();
  }
  void Reserve(uint32_t answer_room) {
    ++pending_;
    reserved_ += answer_room;
  }
  void Write(const CompletionTicket& ticket, shm::CompletionEntry entry,
             std::span<const std::byte> answer);

  const DaemonRingMemory& memory_;
  AreaLedger answers_;
  uint32_t tail_;          // of the next completion
  uint32_t head_;          // of the engine, as last judged
  uint32_t pending_ = 0;   // reservations
  uint32_t reserved_ = 0;  // of the answer area, for them
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_COMPLETION_PRODUCER_H_
