// Commits of rows that a stream of the engine still writes. The desk says of rows, and of tables
// that are out of use, only what is so: what has not come is kept here (docs/adr/0040).
#include <chrono>

#include "base/status_macros.h"
#include "client/sequence_state.h"
#include "device/word.h"

namespace kvasir {

absl::Status SequenceState::CommitAsync(std::span<const uint32_t> ids, const TimelinePoint& done) {
  bool at_border = false;
  absl::Status committed = CommitAsyncUnasked(ids, done, &at_border);
  return at_border ? SyncAfterCommit() : committed;
}

absl::Status SequenceState::CommitAsyncUnasked(std::span<const uint32_t> ids,
                                               const TimelinePoint& done, bool* at_border) {
  if (done.word == nullptr || reinterpret_cast<uintptr_t>(done.word) % sizeof(*done.word) != 0) {
    return InvalidArgument("done.word is null or not aligned: alignment={}", sizeof(*done.word));
  }
  if (IsToldOfAttention()) {
    return FailedPrecondition(
        "a policy that is told of attention takes steps that are through: retention={}",
        retention_);
  }
  KVASIR_RETURN_IF_ERROR(WriteIds(ids));
  KVASIR_RETURN_IF_ERROR(session_->CheckOpen());
  KVASIR_RETURN_IF_ERROR(CheckAlive());
  if (under_way_.empty()) told_rows_ = rows_;
  rows_ += ids.size();
  begun_ = 0;
  next_token_ = nullptr;  // CommitAtOnce() would write to the desk
  under_way_.push_back({rows_, table_.version, done});
  TellWhatHasCome();
  *at_border = border_due_;
  return absl::OkStatus();
}

void SequenceState::TellWhatHasCome() {
  const uint64_t before = told_rows_;
  uint64_t adopted = 0;  // versions begin at 1
  while (!under_way_.empty()) {
    const RowsUnderWay& next = under_way_.front();
    // acquire: pairs with the stream's write of the word, which is behind its kernels
    if (!device::HasReached(next.done.word->load(std::memory_order_acquire), next.done.value)) {
      break;
    }
    told_rows_ = next.rows;
    adopted = next.adopted;
    under_way_.pop_front();
  }
  // The desk of a sequence that the daemon has ended may be another one's.
  if (adopted == 0 || !CheckAlive().ok()) return;
  WriteDesk(told_rows_, adopted);
  border_due_ |= told_rows_ / model_.slots_per_block != before / model_.slots_per_block;
}

absl::Status SequenceState::AwaitStream(StreamPatience& patience) {
  if (under_way_.empty()) return absl::OkStatus();
  if (!patience.until) patience.until = session_->DeadlineFromNow();
  while (!under_way_.empty()) {
    const TimelinePoint& next = under_way_.front().done;
    if (!device::WaitForWord(*next.word, next.value,
                             *patience.until - std::chrono::steady_clock::now())) {
      return DeadlineExceeded(
          "the engine's stream has not come to where its rows are written: id={} rows={} of={} "
          "word={} value={}",
          id_, told_rows_, rows_, next.word->load(std::memory_order_relaxed), next.value);
    }
    TellWhatHasCome();
  }
  return CheckAlive();
}

}  // namespace kvasir
