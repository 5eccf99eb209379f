// CommandCaller: calls over one ring for the threads of an engine: submit, wait, answer.
//
// The ring has one producer and one consumer. Submitting is under a mutex. Of the threads that wait
// one, the leader, waits for the ring itself, without the mutex, and hands out whatever comes; the
// others wait for it. A leader that has its answer lets the next one lead.
//
// Thread-safe. No allocation in a call that succeeds. Calls end at their deadline at the latest; an
// answer that comes later is dropped. Once the ring is broken (kDataLoss) or the daemon gone
// (kUnavailable), so are all calls.
#ifndef KVASIR_RING_COMMAND_CALLER_H_
#define KVASIR_RING_COMMAND_CALLER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "ring/completion_consumer.h"
#include "ring/submission_producer.h"

namespace kvasir::ring {

class CommandCaller {
 public:
  // `doorbell` stays the caller's. REQUIRES: wait.peer_is_gone is set and may be called by any
  // thread.
  CommandCaller(const EngineRingMemory& memory, int doorbell, WaitOptions wait);
  CommandCaller(const CommandCaller&) = delete;
  CommandCaller& operator=(const CommandCaller&) = delete;
  // REQUIRES: no call is under way.
  ~CommandCaller() = default;

  // Submits `command` (user_data and deadline_ms are set here) and waits. The answer's bytes come
  // into `answer`, at least command.answer_bytes_max long; how many there are is in the reply.
  // Errors: the daemon's with its text (`reply` then has retry_ms and detail), kDeadlineExceeded,
  // kUnavailable, kDataLoss, kInvalidArgument (too long for the ring, or for `answer`).
  absl::Status Call(const shm::SubmissionEntry& command,
                    std::span<const std::span<const std::byte>> payload,
                    std::span<std::byte> answer, Instant deadline, shm::CompletionEntry* reply);

 private:
  enum class State { kFree, kWaiting, kDone, kAbandoned };
  // One call under way. Guarded by mutex_.
  struct Waiter {
    State state = State::kFree;
    uint32_t generation = 0;  // of its user_data: an answer to an earlier call is not this one's
    std::span<std::byte> answer;
    shm::CompletionEntry reply{};
    std::array<std::byte, shm::kRingErrorTextBytesMax> text;
    CondVar changed;
  };

  absl::StatusOr<Waiter*> Enter(Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Submit(shm::SubmissionEntry command,
                      std::span<const std::span<const std::byte>> payload, Instant deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Leads, or waits for what the leader brings, until something may have come: to `waiter`, or room
  // where that is null. Errors: kDeadlineExceeded, and what has broken the ring.
  absl::Status Progress(Waiter* waiter, Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Lead(Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Deliver(const Completion& completion) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LetOthersLead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  RingCredit credit_;
  Mutex mutex_;
  SubmissionProducer submissions_ ABSL_GUARDED_BY(mutex_);
  CompletionConsumer completions_;  // the leader's, with or without the mutex
  std::vector<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);       // of waiters_, by index
  std::vector<uint32_t> following_ ABSL_GUARDED_BY(mutex_);  // whose threads sleep, by index
  CondVar room_;                                             // for who could not submit
  uint32_t without_room_ ABSL_GUARDED_BY(mutex_) = 0;        // how many sleep for it
  bool led_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_COMMAND_CALLER_H_
