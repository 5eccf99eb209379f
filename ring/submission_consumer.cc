#include "ring/submission_consumer.h"

#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "ring/command_check.h"
#include "ring/fence.h"
#include "ring/shared_copy.h"

namespace kvasir::ring {

SubmissionConsumer::SubmissionConsumer(const DaemonRingMemory& memory,
                                       CompletionProducer& completions, TurnLimits limits)
    : memory_(memory),
      completions_(completions),
      limits_(limits),
      head_(memory.geometry.first_entry),
      tail_(memory.geometry.first_entry) {
  memory_.daemon_words->sq_need_wake.store(1, std::memory_order_relaxed);
}

absl::Status SubmissionConsumer::Judge(absl::Status status) {
  if (!status.ok()) violation_ = status;
  return status;
}

absl::Status SubmissionConsumer::BeginTurn() {
  KVASIR_RETURN_IF_ERROR(violation_);
  memory_.daemon_words->sq_need_wake.store(0, std::memory_order_relaxed);
  // acquire: the entries before the tail, and their payloads, are whole.
  const uint32_t tail = memory_.engine_words->sq_tail.load(std::memory_order_acquire);
  const uint32_t entries = memory_.geometry.submission_entries;
  // tail_ never leaves head_ by more, so this also refuses a tail that goes back.
  if (tail - head_ > entries || tail - head_ < tail_ - head_) {
    return Judge(
        InvalidArgument("sq_tail of the command ring is out of bounds: value={} min={} max={}",
                        tail, tail_, head_ + entries));
  }
  tail_ = tail;
  entries_ = payload_bytes_ = sequences_ = 0;
  last_ = Taken::kEmpty;
  return absl::OkStatus();
}

absl::StatusOr<Taken> SubmissionConsumer::Take(Command* command, std::span<std::byte> buffer) {
  KVASIR_RETURN_IF_ERROR(violation_);
  const shm::RingGeometry& geometry = memory_.geometry;
  KVASIR_CHECK(buffer.size() >= geometry.PayloadBytesMax() &&
                   reinterpret_cast<uintptr_t>(buffer.data()) % 8 == 0,
               "bytes={} min={}", buffer.size(), geometry.PayloadBytesMax());
  if (tail_ == head_) return last_ = Taken::kEmpty;
  if (entries_ == limits_.entries) return last_ = Taken::kTurnOver;
  const uint32_t index = head_ & (geometry.submission_entries - 1);
  const auto entry = CopyStructFromShared<shm::SubmissionEntry>(
      memory_.submissions + sizeof(shm::SubmissionEntry) * index);
  KVASIR_RETURN_IF_ERROR(Judge(CheckEntry(entry, geometry)));
  const uint32_t sequences = SequencesOf(entry);
  if (entries_ > 0 && (payload_bytes_ + entry.payload_bytes > limits_.payload_bytes ||
                       sequences_ + sequences > limits_.sequences)) {
    return last_ = Taken::kTurnOver;
  }
  const uint32_t room = shm::AnswerRoomOf(entry.answer_bytes_max);
  if (!completions_.HasRoom(room)) {
    KVASIR_RETURN_IF_ERROR(Judge(completions_.ObserveHead()));
    if (!completions_.HasRoom(room)) {
      room_wanted_ = room;
      return last_ = Taken::kNoRoom;
    }
  }
  const std::span<std::byte> payload = buffer.first(entry.payload_bytes);
  CopyFromArea(payload, memory_.payloads, geometry.payload_area_bytes, entry.payload_off);
  KVASIR_RETURN_IF_ERROR(Judge(CheckPayload(entry, payload, geometry)));
  ++head_;
  // release: entry and payload were copied out before the engine writes over them.
  memory_.daemon_words->sq_head.store(head_, std::memory_order_release);
  completions_.Reserve(room);
  ++entries_;
  payload_bytes_ += entry.payload_bytes;
  sequences_ += sequences;
  command->entry = entry;
  command->payload = payload;
  command->ticket = {entry.user_data, entry.answer_bytes_max};
  return last_ = Taken::kCommand;
}

TurnEnd SubmissionConsumer::EndTurn() {
  if (!violation_.ok()) return TurnEnd::kMore;
  if (last_ != Taken::kNoRoom && tail_ != head_) return TurnEnd::kMore;  // seen, and not taken
  memory_.daemon_words->sq_need_wake.store(1, std::memory_order_relaxed);
  // Either the engine's look after its tail sees the flag, or this look sees the tail.
  FullFence();
  if (last_ == Taken::kNoRoom) {
    if (!Judge(completions_.ObserveHead()).ok()) return TurnEnd::kMore;
    return completions_.HasRoom(room_wanted_) ? TurnEnd::kMore : TurnEnd::kIdle;
  }
  return HasNews() ? TurnEnd::kMore : TurnEnd::kIdle;
}

bool SubmissionConsumer::HasNews() const {
  return memory_.engine_words->sq_tail.load(std::memory_order_relaxed) != tail_;
}

}  // namespace kvasir::ring
