#include "ring/completion_producer.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "ring/fence.h"
#include "ring/futex.h"
#include "ring/shared_copy.h"

namespace kvasir::ring {

CompletionProducer::CompletionProducer(const DaemonRingMemory& memory)
    : memory_(memory),
      answers_(memory.geometry.answer_area_bytes, memory.geometry.completion_entries),
      tail_(memory.geometry.first_entry),
      head_(memory.geometry.first_entry) {}

absl::Status CompletionProducer::ObserveHead() {
  // acquire: the engine has read what the head has passed before this side writes over it.
  const uint32_t head = memory_.engine_words->cq_head.load(std::memory_order_acquire);
  if (head - head_ > tail_ - head_) {
    return InvalidArgument("cq_head of the command ring is out of bounds: value={} min={} max={}",
                           head, head_, tail_);
  }
  answers_.GiveBack(head_, head);
  head_ = head;
  return absl::OkStatus();
}

void CompletionProducer::Complete(const CompletionTicket& ticket, const Answer& answer) {
  shm::CompletionEntry entry{};
  if (answer.bytes.size() > ticket.answer_bytes_max) {
    entry.status = static_cast<int32_t>(absl::StatusCode::kOutOfRange);
    entry.detail = static_cast<uint32_t>(answer.bytes.size());
    Write(ticket, entry, {});
    return;
  }
  std::copy(answer.result.begin(), answer.result.end(), entry.result);
  Write(ticket, entry, answer.bytes);
}

void CompletionProducer::Fail(const CompletionTicket& ticket, const absl::Status& status,
                              uint32_t retry_ms) {
  KVASIR_CHECK(!status.ok(), "a success is completed, and does not fail");
  shm::CompletionEntry entry{};
  entry.status = static_cast<int32_t>(status.code());
  entry.retry_ms = retry_ms;
  const auto text = std::as_bytes(std::span(status.message().data(), status.message().size()));
  Write(ticket, entry, text.first(std::min<size_t>(text.size(), shm::kRingErrorTextBytesMax)));
}

void CompletionProducer::Write(const CompletionTicket& ticket, shm::CompletionEntry entry,
                               std::span<const std::byte> answer) {
  const uint32_t room = shm::AnswerRoomOf(ticket.answer_bytes_max);
  KVASIR_CHECK(pending_ > 0 && reserved_ >= room, "completed twice: user_data={}",
               ticket.user_data);
  --pending_;
  reserved_ -= room;
  entry.user_data = ticket.user_data;
  entry.boot_epoch = memory_.boot_epoch;
  entry.answer_bytes = static_cast<uint32_t>(answer.size());
  entry.answer_bytes_max = ticket.answer_bytes_max;
  entry.answer_off = answers_.Take(tail_, entry.answer_bytes);
  const shm::RingGeometry& geometry = memory_.geometry;
  (void)CopyToArea(memory_.answers, geometry.answer_area_bytes, entry.answer_off, answer);
  const uint32_t index = tail_ & (geometry.completion_entries - 1);
  CopyStructToShared(memory_.completions + sizeof(entry) * index, entry);
  ++tail_;
  memory_.daemon_words->cq_tail.store(tail_, std::memory_order_release);
  // Either the engine's look after its flag sees the tail, or this look sees the flag.
  FullFence();
  if (memory_.engine_words->cq_need_wake.load(std::memory_order_relaxed) != 0) {
    FutexWake(memory_.daemon_words->cq_tail);
  }
}

}  // namespace kvasir::ring
