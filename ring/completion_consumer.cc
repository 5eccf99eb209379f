#include "ring/completion_consumer.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "ring/fence.h"
#include "ring/futex.h"
#include "ring/pause.h"
#include "ring/shared_copy.h"

namespace kvasir::ring {
namespace {

constexpr int32_t kStatusMax = 16;       // google.rpc.Code
constexpr int kLooksBetweenClocks = 32;  // a look at the clock costs as much as some of these

absl::Status Judge(const shm::CompletionEntry& entry, const EngineRingMemory& memory,
                   uint32_t room_kept) {
  if (entry.boot_epoch != memory.boot_epoch) {
    return DataLoss("a completion is not of this daemon: boot_epoch={:x} expected={:x}",
                    entry.boot_epoch, memory.boot_epoch);
  }
  if (entry.status < 0 || entry.status > kStatusMax) {
    return DataLoss("status of a completion is out of bounds: value={} min=0 max={}", entry.status,
                    kStatusMax);
  }
  const uint32_t area = memory.geometry.answer_area_bytes;
  if (entry.answer_off >= area || entry.answer_off % shm::kRingUnit != 0) {
    return DataLoss("answer_off of a completion is out of bounds: value={} max={} multiple_of={}",
                    entry.answer_off, area - shm::kRingUnit, shm::kRingUnit);
  }
  if (entry.answer_bytes_max > memory.geometry.AnswerBytesMax() ||
      shm::AnswerRoomOf(entry.answer_bytes_max) > room_kept) {
    return DataLoss("answer_bytes_max of a completion is out of bounds: value={} room_kept={}",
                    entry.answer_bytes_max, room_kept);
  }
  const uint32_t bytes_max =
      entry.status == 0 ? entry.answer_bytes_max : shm::kRingErrorTextBytesMax;
  if (entry.answer_bytes > bytes_max) {
    return DataLoss("answer_bytes of a completion is out of bounds: value={} max={}",
                    entry.answer_bytes, bytes_max);
  }
  return absl::OkStatus();
}

}  // namespace

void Completion::CopyAnswer(std::span<std::byte> to) const {
  KVASIR_CHECK(to.size() == entry.answer_bytes, "bytes={} expected={}", to.size(),
               entry.answer_bytes);
  CopyFromArea(to, area, area_bytes, entry.answer_off);
}

CompletionConsumer::CompletionConsumer(const EngineRingMemory& memory, RingCredit& credit,
                                       WaitOptions options)
    : memory_(memory),
      credit_(credit),
      options_(std::move(options)),
      head_(memory.geometry.first_entry),
      tail_(memory.geometry.first_entry) {
  KVASIR_CHECK(options_.peer_is_gone != nullptr, "nobody says whether the peer is gone");
}

absl::StatusOr<bool> CompletionConsumer::Look() {
  if (tail_ != head_) return true;
  // acquire: the completions before the tail, and their answers, are whole.
  const uint32_t tail = memory_.daemon_words->cq_tail.load(std::memory_order_acquire);
  const uint32_t in_flight = credit_.in_flight();
  if (tail - head_ > in_flight) {
    return DataLoss("the daemon completed what was not submitted: cq_tail={} min={} max={}", tail,
                    head_, head_ + in_flight);
  }
  tail_ = tail;
  return tail_ != head_;
}

absl::StatusOr<bool> CompletionConsumer::Next(Completion* completion) {
  KVASIR_ASSIGN_OR_RETURN(const bool there, Look());
  if (!there) return false;
  const uint32_t index = head_ & (memory_.geometry.completion_entries - 1);
  completion->entry = CopyStructFromShared<shm::CompletionEntry>(
      memory_.completions + sizeof(shm::CompletionEntry) * index);
  KVASIR_RETURN_IF_ERROR(Judge(completion->entry, memory_, credit_.answer_room()));
  completion->area = memory_.answers;
  completion->area_bytes = memory_.geometry.answer_area_bytes;
  answer_room_ = shm::AnswerRoomOf(completion->entry.answer_bytes_max);
  given_ = true;
  return true;
}

void CompletionConsumer::Done() {
  KVASIR_CHECK(given_, "no completion was given: head={}", head_);
  given_ = false;
  ++head_;
  // release: entry and answer were read before the daemon writes over them.
  memory_.engine_words->cq_head.store(head_, std::memory_order_release);
  credit_.GiveBack(answer_room_);
}

absl::Status CompletionConsumer::Wait(Instant deadline) {
  KVASIR_ASSIGN_OR_RETURN(const bool there, Look());
  if (there) return absl::OkStatus();
  if (options_.spin.count() > 0) {
    Instant until{};
    for (;;) {
      for (int i = 0; i < kLooksBetweenClocks; ++i) {
        Pause();
        if (memory_.daemon_words->cq_tail.load(std::memory_order_relaxed) == tail_) continue;
        return Look().status();
      }
      const Instant now = SystemClock().Now();
      if (until == Instant{}) until = std::min(deadline, now + options_.spin);
      if (now >= until) break;
    }
  }
  memory_.engine_words->cq_need_wake.store(1, std::memory_order_relaxed);
  const absl::Status status = Sleep(deadline);
  memory_.engine_words->cq_need_wake.store(0, std::memory_order_relaxed);
  return status;
}

absl::Status CompletionConsumer::Sleep(Instant deadline) {
  // Either the daemon's look after its tail sees the flag, or the look below sees the tail. Once is
  // enough: the flag stays until somebody has looked in vain at the end.
  FullFence();
  for (;;) {
    KVASIR_ASSIGN_OR_RETURN(const bool there, Look());
    if (there) return absl::OkStatus();
    const auto left = deadline - SystemClock().Now();
    if (left <= left.zero()) return DeadlineExceeded("the daemon has not answered in time");
    const auto at_most = std::min<std::chrono::nanoseconds>(left, options_.slice);
    if (FutexWait(memory_.daemon_words->cq_tail, tail_, at_most) == FutexWaited::kTimedOut &&
        options_.peer_is_gone()) {
      KVASIR_ASSIGN_OR_RETURN(const bool late, Look());  // written before it went
      if (late) return absl::OkStatus();
      return Unavailable("the daemon is gone");
    }
  }
}

}  // namespace kvasir::ring
