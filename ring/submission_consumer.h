// SubmissionConsumer: the daemon's end of the submission ring.
//
// A turn: BeginTurn() copies `sq_tail` and judges it; Take() copies an entry out once, judges the
// copy, copies its payload out once, judges that, and moves `sq_head` (release), after which the
// engine may use both again; EndTurn() says whether the session may be left alone until its
// doorbell rings. What is done is bounded by TurnLimits, whatever the segment contains.
//
//   idle     sq_need_wake is 1; nothing runs for this session, whether there are ten of them or a
//            thousand. A ring gives one edge in epoll.
//   awake    sq_need_wake is 0, from BeginTurn() to the EndTurn() that says kIdle. That one writes
//            1, full fence, and looks at the ring once more before it says so.
//   ended    a value was wrong that an honest engine cannot write. Every further call says so.
//
// Thread-safety: as CompletionProducer, with which it shares the room. No allocation but for the
// text of a violation.
#ifndef KVASIR_RING_SUBMISSION_CONSUMER_H_
#define KVASIR_RING_SUBMISSION_CONSUMER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "ring/completion_producer.h"
#include "ring/ring_memory.h"

namespace kvasir::ring {

// At most so much of one session, then others have their turn. The first entry of a turn is taken
// in any case: no entry is larger than the bounds that are the default here.
struct TurnLimits {
  uint32_t entries = 32;
  uint32_t payload_bytes = shm::kRingPayloadBytesMax;
  uint32_t sequences = 1024;
};

// A submission, copied and judged. The payload lies in the caller's buffer.
struct Command {
  shm::SubmissionEntry entry{};
  std::span<const std::byte> payload;
  CompletionTicket ticket;

  shm::CommandOp op() const { return static_cast<shm::CommandOp>(entry.op); }
};

enum class Taken {
  kCommand,
  kEmpty,     // nothing more that this turn has seen
  kTurnOver,  // there is more, and it is another session's turn
  kNoRoom,    // the engine has to read completions first, and then to ring
};

enum class TurnEnd {
  kIdle,  // until the doorbell rings
  kMore,  // another turn is due
};

class SubmissionConsumer {
 public:
  // Writes sq_need_wake: REQUIRES that the engine does not have the segments yet. `memory` and
  // `completions` must outlive it.
  SubmissionConsumer(const DaemonRingMemory& memory, CompletionProducer& completions,
                     TurnLimits limits = {});
  SubmissionConsumer(const SubmissionConsumer&) = delete;
  SubmissionConsumer& operator=(const SubmissionConsumer&) = delete;

  // Errors: kInvalidArgument naming word and bounds, a violation: the session has to be ended.
  absl::Status BeginTurn();
  // The next command. `buffer` is for its payload, 8-byte aligned, at least
  // geometry.PayloadBytesMax() long; the command is valid until the buffer is used again. Each
  // command that is given has to be completed, once. Errors: as BeginTurn(), naming the field.
  absl::StatusOr<Taken> Take(Command* command, std::span<std::byte> buffer);
  // A violation that it meets is told by the next BeginTurn(), which is then due.
  TurnEnd EndTurn();

  // Something was submitted that no turn has seen: for a daemon that looks for a while before
  // EndTurn(). Cost: a load.
  bool HasNews() const;

 private:
  absl::Status Judge(absl::Status status);

  const DaemonRingMemory& memory_;
  CompletionProducer& completions_;
  const TurnLimits limits_;
  uint32_t head_;  // of the next entry to take
  uint32_t tail_;  // of the engine, as this turn has judged it
  uint32_t entries_ = 0, payload_bytes_ = 0, sequences_ = 0;  // of this turn
  Taken last_ = Taken::kEmpty;
  uint32_t room_wanted_ = 0;  // kNoRoom: of the answer area
  absl::Status violation_;
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_SUBMISSION_CONSUMER_H_
