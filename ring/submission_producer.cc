#include "ring/submission_producer.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "ring/doorbell.h"
#include "ring/fence.h"
#include "ring/shared_copy.h"

namespace kvasir::ring {

SubmissionProducer::SubmissionProducer(const EngineRingMemory& memory, RingCredit& credit,
                                       int doorbell)
    : memory_(memory),
      credit_(credit),
      doorbell_(doorbell),
      payloads_(memory.geometry.payload_area_bytes, memory.geometry.submission_entries),
      tail_(memory.geometry.first_entry),
      head_(memory.geometry.first_entry) {}

absl::Status SubmissionProducer::ObserveHead() {
  // acquire: the daemon has copied out what the head has passed before this side writes over it.
  const uint32_t head = memory_.daemon_words->sq_head.load(std::memory_order_acquire);
  if (head - head_ > tail_ - head_) {
    return DataLoss("the daemon took submissions that there are none of: sq_head={} min={} max={}",
                    head, head_, tail_);
  }
  payloads_.GiveBack(head_, head);
  head_ = head;
  return absl::OkStatus();
}

absl::StatusOr<bool> SubmissionProducer::Submit(const shm::SubmissionEntry& command,
                                                std::span<const std::span<const std::byte>> payload,
                                                Bell bell) {
  const shm::RingGeometry& geometry = memory_.geometry;
  uint64_t bytes = 0;
  for (const std::span<const std::byte> piece : payload) bytes += piece.size();
  if (bytes > geometry.PayloadBytesMax()) {
    return InvalidArgument("payload is too long for the command ring: bytes={} max={}", bytes,
                           geometry.PayloadBytesMax());
  }
  if (command.answer_bytes_max > geometry.AnswerBytesMax()) {
    return InvalidArgument("answer_bytes_max is out of bounds: value={} max={}",
                           command.answer_bytes_max, geometry.AnswerBytesMax());
  }
  const uint32_t answer_room = shm::AnswerRoomOf(command.answer_bytes_max);
  if (credit_.in_flight() >= geometry.completion_entries ||
      credit_.answer_room() + answer_room > geometry.answer_area_bytes) {
    return false;
  }
  const auto has_room = [&] {
    return tail_ - head_ < geometry.submission_entries &&
           AreaLedger::Rounded(static_cast<uint32_t>(bytes)) <= payloads_.free_bytes();
  };
  if (!has_room()) {
    KVASIR_RETURN_IF_ERROR(ObserveHead());
    if (!has_room()) return false;
  }
  shm::SubmissionEntry entry = command;
  entry.reserved0 = 0;
  entry.reserved1 = 0;
  entry.payload_bytes = static_cast<uint32_t>(bytes);
  entry.payload_off = payloads_.Take(tail_, entry.payload_bytes);
  uint32_t off = entry.payload_off;
  for (const std::span<const std::byte> piece : payload) {
    off = CopyToArea(memory_.payloads, geometry.payload_area_bytes, off, piece);
  }
  const uint32_t index = tail_ & (geometry.submission_entries - 1);
  CopyStructToShared(memory_.submissions + sizeof(entry) * index, entry);
  credit_.Take(answer_room);
  ++tail_;
  memory_.engine_words->sq_tail.store(tail_, std::memory_order_release);
  if (bell == Bell::kRing) KVASIR_RETURN_IF_ERROR(Ring());
  return true;
}

absl::Status SubmissionProducer::Ring() {
  // Either the daemon's look after its flag sees the tail, or this look sees the flag.
  FullFence();
  if (memory_.daemon_words->sq_need_wake.load(std::memory_order_relaxed) == 0) {
    return absl::OkStatus();
  }
  return RingDoorbell(doorbell_);
}

}  // namespace kvasir::ring
