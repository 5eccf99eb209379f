// A sequence's step: from the rows that are there to the rows that are committed.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "client/sequence_state.h"

namespace kvasir {
namespace {

// Of one Begin(): tables that it passes over, each of which covers a row at least, so that two are
// enough; and twice where memory is short.
constexpr int kAsksPerStepMax = 6;

}  // namespace

absl::Status SequenceState::ErrorOf(const absl::Status& failed) const {
  // An unknown sequence says no more than that: this says why.
  if (!failed.ok()) KVASIR_RETURN_IF_ERROR(CheckAlive());
  return failed;
}

absl::Status SequenceState::StartStep(uint32_t* want_rows) {
  if (closed_) return FailedPrecondition("the sequence is closed: id={}", id_);
  if (*want_rows == 0) return InvalidArgument("want_rows is 0: min=1");
  if (retrieves()) *want_rows = std::min(*want_rows, step_rows_max_);
  KVASIR_RETURN_IF_ERROR(CheckAlive());
  begun_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<bool> SequenceState::CanStep(uint32_t want_rows, StreamPatience& patience) {
  if (Refresh()) {
    ForbidAtOnce();
    KVASIR_RETURN_IF_ERROR(LoadTable());
    granted_ = 0;  // MakeStep() reads the directory anew
    views_are_old_ = true;
  }
  const bool stale = rows_ >= table_.until_row;
  if (!stale && board_.granted.load(std::memory_order_acquire) >= rows_ + want_rows) return true;
  // The daemon is asked, and had better know all there is: the next table is made of what has come.
  if (stale) KVASIR_RETURN_IF_ERROR(AwaitStream(patience));
  if (under_way_.empty()) {
    WriteDesk();
  } else {
    TellWhatHasCome();
  }
  return false;
}

absl::StatusOr<StepView> SequenceState::MakeStep(uint32_t want_rows) {
  if (rows_ + want_rows > granted_) {
    views_are_old_ = true;
    KVASIR_RETURN_IF_ERROR(ExtendRecent());
  }
  if (views_are_old_) MakeLayerViews();
  views_are_old_ = false;
  const uint64_t end = std::min({rows_ + want_rows, granted_, table_.until_row});
  if (end <= rows_) {
    return Internal("no row can be computed: row={} granted={} until_row={}", rows_, granted_,
                    table_.until_row);
  }
  begun_ = static_cast<uint32_t>(end - rows_);
  PrepareReports();
  AllowAtOnce();
  return View();
}

bool SequenceState::IsToldOfAttention() const {
  return retrieves() || std::any_of(lanes_.begin(), lanes_.end(), [](const LaneViews& lane) {
           return lane.report_geometry.bytes > 0;
         });
}

void SequenceState::AllowAtOnce() {
  ForbidAtOnce();
  if (IsToldOfAttention()) return;  // each of its steps begins with something to be done
  at_once_end_ = std::min(granted_, table_.until_row);
  if (desk_.adopted.load(std::memory_order_relaxed) != table_.version ||
      desk_.uid.load(std::memory_order_relaxed) != uid_) {
    return;  // the next commit says so
  }
  if (!under_way_.empty()) return;    // nor may the desk say that rows are there
  LaneViews& first = lanes_.front();  // ids go into the first lane's trailers
  const uint64_t slots = model_.slots_per_block;
  const uint64_t block = rows_ / slots - first.first_block;
  if (rows_ >= granted_ || block >= first.trailers.size()) return;
  next_token_ = first.trailers[block] + first.recent_block.tok_off - first.recent_block.pos_off +
                4 * (rows_ % slots);
  // The last row of a block is not among them: behind it the daemon is asked.
  rows_left_ = static_cast<uint32_t>(slots - 1 - rows_ % slots);
}

absl::StatusOr<StepView> SequenceState::Begin(uint32_t want_rows) {
  if (StepAtOnce(want_rows)) return View();
  KVASIR_RETURN_IF_ERROR(StartStep(&want_rows));
  // A table may end before the row that is wanted when windows are smaller than a block: then it is
  // adopted unused, so that the daemon can prepare the next one.
  StreamPatience patience;
  for (int attempt = 0; attempt < kAsksPerStepMax; ++attempt) {
    KVASIR_ASSIGN_OR_RETURN(const bool ready, CanStep(want_rows, patience));
    if (ready) break;
    absl::Status status = Sync(rows_ + want_rows, rows_);
    if (status.code() == absl::StatusCode::kResourceExhausted && attempt + 1 < kAsksPerStepMax) {
      // What the sequence will have left may be room enough: once its stream has come, once it has
      // adopted the table that the daemon has published meanwhile.
      const bool waits = !under_way_.empty();
      KVASIR_RETURN_IF_ERROR(AwaitStream(patience));
      if (waits || HasNewTable()) continue;
    }
    if (want_rows > 1 && (status.code() == absl::StatusCode::kResourceExhausted ||
                          status.code() == absl::StatusCode::kOutOfRange)) {
      status = Sync(rows_ + 1, rows_);  // fewer rows than wanted, if there is room for one
      const uint64_t granted = board_.granted.load(std::memory_order_acquire);
      const uint64_t rows = granted > rows_ ? granted - rows_ : 1;
      if (status.ok()) want_rows = static_cast<uint32_t>(std::min<uint64_t>(want_rows, rows));
    }
    KVASIR_RETURN_IF_ERROR(ErrorOf(status));
  }
  return MakeStep(want_rows);
}

std::optional<absl::StatusOr<StepView>> SequenceState::BeginUnasked(uint32_t want_rows,
                                                                    StreamPatience& patience) {
  absl::Status started = StartStep(&want_rows);
  if (!started.ok()) return started;
  const absl::StatusOr<bool> ready = CanStep(want_rows, patience);
  if (!ready.ok()) return ready.status();
  if (!*ready) return std::nullopt;
  return MakeStep(want_rows);
}

shm::SyncNeedRecord SequenceState::NeedOfStep(uint32_t want_rows) const {
  if (retrieves()) want_rows = std::min(want_rows, step_rows_max_);
  return {slot_, uid_, rows_ + want_rows, rows_, shm::kSyncHasTableRow, 0};
}

absl::Status SequenceState::WriteIds(std::span<const uint32_t> ids) {
  if (ids.empty() || ids.size() > begun_) {
    return InvalidArgument("ids count is out of bounds: value={} min=1 max={}", ids.size(), begun_);
  }
  for (const uint32_t id : ids) {
    if (id >= model_.vocabulary_size) {
      return InvalidArgument("token id beyond the vocabulary: token={} max={}", id,
                             model_.vocabulary_size - 1);
    }
  }
  if (reports_mass_ && ids.size() != begun_) {
    return InvalidArgument(
        "a policy that scores by attention mass takes whole steps: ids={} rows_of_step={}",
        ids.size(), begun_);
  }
  LaneViews& first = lanes_.front();  // ids go into the first lane's trailers
  const uint64_t tok_off = first.recent_block.tok_off - first.recent_block.pos_off;
  const uint64_t slots = model_.slots_per_block;
  for (size_t i = 0; i < ids.size(); ++i) {
    const uint64_t row = rows_ + i;
    std::memcpy(first.trailers[row / slots - first.first_block] + tok_off + 4 * (row % slots),
                &ids[i], 4);
  }
  return absl::OkStatus();
}

absl::Status SequenceState::CommitUnasked(std::span<const uint32_t> ids, StreamPatience& patience,
                                          bool* at_border) {
  if (ids.size() == 1 && CommitAtOnce(ids.front())) return absl::OkStatus();
  KVASIR_RETURN_IF_ERROR(WriteIds(ids));
  KVASIR_RETURN_IF_ERROR(AwaitStream(patience));
  for (LaneViews& lane : lanes_) AddStepMass(lane, ids.size());
  KVASIR_RETURN_IF_ERROR(session_->CheckOpen());
  KVASIR_RETURN_IF_ERROR(CheckAlive());
  const uint64_t before = rows_;
  rows_ += ids.size();
  begun_ = 0;
  WriteDesk();
  if (at_once_end_ != 0) AllowAtOnce();
  border_due_ |= rows_ / model_.slots_per_block != before / model_.slots_per_block;
  *at_border = border_due_;
  return absl::OkStatus();
}

absl::Status SequenceState::SyncAfterCommit() { return ErrorOf(Sync(0, std::nullopt)); }

absl::Status SequenceState::Commit(std::span<const uint32_t> ids) {
  bool at_border = false;
  StreamPatience patience;
  absl::Status committed = CommitUnasked(ids, patience, &at_border);
  return at_border ? SyncAfterCommit() : committed;
}

void SequenceState::WriteDesk() { WriteDesk(rows_, table_loaded_ ? table_.version : 1); }

void SequenceState::WriteDesk(uint64_t rows, uint64_t adopted) {
  // release: the rows, their ids, and the last read of an older table come before; uid goes last,
  // so that the daemon ignores the line until all of it belongs to this life of the slot.
  desk_.rows.store(rows, std::memory_order_release);
  desk_.adopted.store(adopted, std::memory_order_release);
  desk_.uid.store(uid_, std::memory_order_release);
}

absl::Status SequenceState::Sync(uint64_t granted_rows, std::optional<uint64_t> table_row) {
  KVASIR_ASSIGN_OR_RETURN(unseen_bytes_, CallSync(granted_rows, table_row));
  border_due_ = false;
  return absl::OkStatus();
}

}  // namespace kvasir
