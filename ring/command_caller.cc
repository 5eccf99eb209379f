#include "ring/command_caller.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/shortage.h"
#include "base/status_macros.h"

namespace kvasir::ring {
namespace {

uint32_t MillisecondsUntil(Instant deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - SystemClock().Now()).count();
  constexpr int64_t kMax = std::numeric_limits<uint32_t>::max();
  return static_cast<uint32_t>(std::clamp<int64_t>(left, 0, kMax));
}

}  // namespace

CommandCaller::CommandCaller(const EngineRingMemory& memory, int doorbell, WaitOptions wait)
    : submissions_(memory, credit_, doorbell),
      completions_(memory, credit_, std::move(wait)),
      waiters_(memory.geometry.completion_entries) {
  following_.reserve(memory.geometry.completion_entries);
  for (uint32_t i = 0; i < memory.geometry.completion_entries; ++i) free_.push_back(i);
}

absl::Status CommandCaller::Call(const shm::SubmissionEntry& command,
                                 std::span<const std::span<const std::byte>> payload,
                                 std::span<std::byte> answer, Instant deadline,
                                 shm::CompletionEntry* reply) {
  if (answer.size() < command.answer_bytes_max) {
    return InvalidArgument("room for the answer is too small: bytes={} answer_bytes_max={}",
                           answer.size(), command.answer_bytes_max);
  }
  MutexLock lock(mutex_);
  KVASIR_ASSIGN_OR_RETURN(Waiter* const waiter, Enter(deadline));
  const auto index = static_cast<uint32_t>(waiter - waiters_.data());
  waiter->answer = answer;
  shm::SubmissionEntry entry = command;
  entry.user_data = uint64_t{waiter->generation} << 32 | index;
  absl::Status status = Submit(entry, payload, deadline);
  if (!status.ok()) {
    waiter->state = State::kFree;
    free_.push_back(index);
    LetOthersLead();
    return status;
  }
  while (status.ok() && waiter->state == State::kWaiting) {
    status = Progress(waiter, deadline);
  }
  LetOthersLead();
  if (waiter->state == State::kWaiting) {
    waiter->state = State::kAbandoned;
    return status;
  }
  *reply = waiter->reply;
  const std::string text(reinterpret_cast<const char*>(waiter->text.data()),
                         reply->status == 0 ? 0 : reply->answer_bytes);
  waiter->state = State::kFree;
  free_.push_back(index);
  if (reply->status == 0) return absl::OkStatus();
  absl::Status error = MakeError(static_cast<absl::StatusCode>(reply->status), text);
  if (error.code() == absl::StatusCode::kResourceExhausted && reply->retry_ms > 0) {
    AttachShortage({"", 0, "", std::chrono::milliseconds(reply->retry_ms)}, &error);
  }
  return error;
}

absl::StatusOr<CommandCaller::Waiter*> CommandCaller::Enter(Instant deadline) {
  KVASIR_RETURN_IF_ERROR(broken_);
  while (free_.empty()) {
    const absl::Status status = Progress(nullptr, deadline);
    if (!status.ok()) {
      LetOthersLead();
      return status;
    }
  }
  Waiter& waiter = waiters_[free_.back()];
  free_.pop_back();
  waiter.state = State::kWaiting;
  ++waiter.generation;
  return &waiter;
}

absl::Status CommandCaller::Submit(shm::SubmissionEntry command,
                                   std::span<const std::span<const std::byte>> payload,
                                   Instant deadline) {
  for (;;) {
    command.deadline_ms = MillisecondsUntil(deadline);
    KVASIR_ASSIGN_OR_RETURN(const bool submitted, submissions_.Submit(command, payload));
    if (submitted) return absl::OkStatus();
    KVASIR_RETURN_IF_ERROR(Progress(nullptr, deadline));
  }
}

absl::Status CommandCaller::Progress(Waiter* waiter, Instant deadline) {
  KVASIR_RETURN_IF_ERROR(broken_);
  if (!led_) return Lead(deadline);
  if (waiter == nullptr) {
    ++without_room_;
    (void)room_.WaitUntil(mutex_, deadline);
    --without_room_;
  } else {
    const auto index = static_cast<uint32_t>(waiter - waiters_.data());
    following_.push_back(index);
    (void)waiter->changed.WaitUntil(mutex_, deadline);
    following_.erase(std::find(following_.begin(), following_.end(), index));
  }
  if (SystemClock().Now() >= deadline) {
    return DeadlineExceeded("the daemon has not answered in time");
  }
  return broken_;
}

absl::Status CommandCaller::Lead(Instant deadline) {
  led_ = true;
  mutex_.Unlock();
  absl::Status status = completions_.Wait(deadline);
  mutex_.Lock();
  led_ = false;
  while (status.ok()) {
    Completion completion;
    const absl::StatusOr<bool> there = completions_.Next(&completion);
    if (!there.ok()) {
      status = there.status();
    } else if (!*there) {
      return absl::OkStatus();
    } else {
      status = Deliver(completion);
      completions_.Done();
    }
  }
  if (status.code() == absl::StatusCode::kDeadlineExceeded) return status;
  broken_ = status;
  for (Waiter& waiter : waiters_) waiter.changed.NotifyAll();
  room_.NotifyAll();
  return status;
}

absl::Status CommandCaller::Deliver(const Completion& completion) {
  const uint64_t user_data = completion.entry.user_data;
  const auto index = static_cast<uint32_t>(user_data);
  if (index >= waiters_.size() || waiters_[index].generation != user_data >> 32 ||
      (waiters_[index].state != State::kWaiting && waiters_[index].state != State::kAbandoned)) {
    return DataLoss("the daemon completed what was not asked: user_data={:#x}", user_data);
  }
  Waiter& waiter = waiters_[index];
  if (without_room_ > 0) room_.NotifyAll();
  if (waiter.state == State::kAbandoned) {
    waiter.state = State::kFree;
    free_.push_back(index);
    return absl::OkStatus();
  }
  const uint32_t bytes = completion.entry.answer_bytes;
  const bool failed = completion.entry.status != 0;
  const std::span<std::byte> to = failed ? std::span<std::byte>(waiter.text) : waiter.answer;
  if (bytes > to.size()) {
    return DataLoss("an answer is longer than its room: bytes={} max={}", bytes, to.size());
  }
  completion.CopyAnswer(to.first(bytes));
  waiter.reply = completion.entry;
  waiter.state = State::kDone;
  waiter.changed.NotifyOne();
  return absl::OkStatus();
}

// Whoever wakes and has nothing to wait for any more passes it on.
void CommandCaller::LetOthersLead() {
  if (led_) return;
  if (!following_.empty()) {
    waiters_[following_.front()].changed.NotifyOne();
  } else if (without_room_ > 0) {
    room_.NotifyOne();
  }
}

}  // namespace kvasir::ring
