// Steps of many sequences: those of one session ask the daemon together.
#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "client/ring_calls.h"
#include "client/sequence.h"
#include "client/sequence_state.h"

namespace kvasir {
namespace {

struct Asker {
  size_t index = 0;
  SequenceState* sequence = nullptr;
  shm::SyncNeedRecord need{};
  // Of the call that asked for it and others. Nothing: it has not been asked for, or was refused,
  // and why is only told to who asks alone.
  std::optional<absl::Status> answer = {};
};

// One call, of one session.
void AskTogether(SessionState& session, std::span<Asker> askers) {
  std::vector<shm::SyncNeedRecord> needs;
  needs.reserve(askers.size());
  for (const Asker& asker : askers) needs.push_back(asker.need);
  std::vector<shm::SyncResultRecord> results(needs.size());
  const absl::Status status = SyncMany(session, needs, results);
  for (size_t i = 0; i < askers.size(); ++i) {
    if (!status.ok()) {
      askers[i].answer = status;
    } else if (results[i].status == 0) {
      askers[i].sequence->TakeAnswer(results[i]);
      askers[i].answer = absl::OkStatus();
    }
  }
}

// In as few calls as can be: one for each session, and more where that has no room for all.
void AskAll(std::vector<Asker>& askers) {
  const auto session_of = [](const Asker& asker) { return &asker.sequence->session(); };
  std::sort(askers.begin(), askers.end(), [&](const Asker& a, const Asker& b) {
    return std::pair(session_of(a), a.index) < std::pair(session_of(b), b.index);
  });
  for (size_t first = 0; first < askers.size();) {
    SessionState& session = *session_of(askers[first]);
    const size_t max = SyncNeedsMax(session);
    size_t end = first + 1;
    while (end < askers.size() && end - first < max && session_of(askers[end]) == &session) ++end;
    // Who is alone asks for itself: its answer has a text.
    if (end - first > 1) AskTogether(session, std::span(askers).subspan(first, end - first));
    first = end;
  }
}

}  // namespace

// So many sequences ahead are their own lines asked for, and so many those that they name.
constexpr size_t kOwnAhead = 12, kSharedAhead = 6;

void Sequence::BeginMany(
    std::span<Sequence* const> sequences, uint32_t want_rows,
    absl::FunctionRef<void(size_t index, const absl::StatusOr<StepView>& view)> begun) {
  std::vector<size_t> others;  // something has changed since their last step
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (i + kOwnAhead < sequences.size()) sequences[i + kOwnAhead]->state_->PrefetchOwn();
    if (i + kSharedAhead < sequences.size()) sequences[i + kSharedAhead]->state_->PrefetchForStep();
    SequenceState& sequence = *sequences[i]->state_;
    if (sequence.StepAtOnce(want_rows)) {
      begun(i, sequence.View());
    } else {
      others.push_back(i);
    }
  }
  if (!others.empty()) BeginOthers(sequences, others, want_rows, begun);
}

void Sequence::BeginOthers(
    std::span<Sequence* const> sequences, std::span<const size_t> others, uint32_t want_rows,
    absl::FunctionRef<void(size_t index, const absl::StatusOr<StepView>& view)> begun) {
  std::vector<Asker> askers;
  StreamPatience patience;
  for (const size_t i : others) {
    SequenceState& sequence = *sequences[i]->state_;
    if (const auto view = sequence.BeginUnasked(want_rows, patience)) {
      begun(i, *view);
    } else {
      askers.push_back({i, &sequence, sequence.NeedOfStep(want_rows)});
    }
  }
  AskAll(askers);
  for (const Asker& asker : askers) {
    if (!asker.answer || asker.answer->ok()) {
      begun(asker.index, asker.sequence->Begin(want_rows));
      continue;
    }
    // The call has failed, by its deadline or for ever: no second one. What this sequence wanted
    // may have come all the same while others waited.
    const auto view = asker.sequence->BeginUnasked(want_rows, patience);
    begun(asker.index, view ? *view : asker.sequence->ErrorOf(*asker.answer));
  }
}

void Sequence::CommitMany(
    std::span<Sequence* const> sequences, std::span<const uint32_t> ids,
    absl::FunctionRef<void(size_t index, const absl::Status& status)> committed) {
  std::vector<size_t> others;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (i + kOwnAhead < sequences.size()) sequences[i + kOwnAhead]->state_->PrefetchOwn();
    if (i + kSharedAhead < sequences.size()) {
      sequences[i + kSharedAhead]->state_->PrefetchForCommit();
    }
    if (sequences[i]->state_->CommitAtOnce(ids[i])) {
      committed(i, absl::OkStatus());
    } else {
      others.push_back(i);
    }
  }
  if (!others.empty()) CommitOthers(sequences, others, ids, /*done=*/nullptr, committed);
}

void Sequence::CommitManyAsync(
    std::span<Sequence* const> sequences, std::span<const uint32_t> ids, const TimelinePoint& done,
    absl::FunctionRef<void(size_t index, const absl::Status& status)> committed) {
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  CommitOthers(sequences, all, ids, &done, committed);
}

void Sequence::CommitOthers(
    std::span<Sequence* const> sequences, std::span<const size_t> others,
    std::span<const uint32_t> ids, const TimelinePoint* done,
    absl::FunctionRef<void(size_t index, const absl::Status& status)> committed) {
  std::vector<Asker> askers;
  StreamPatience patience;
  for (const size_t i : others) {
    SequenceState& sequence = *sequences[i]->state_;
    bool at_border = false;
    const absl::Status status =
        done == nullptr ? sequence.CommitUnasked(ids.subspan(i, 1), patience, &at_border)
                        : sequence.CommitAsyncUnasked(ids.subspan(i, 1), *done, &at_border);
    if (at_border) {
      askers.push_back({i, &sequence, sequence.NeedOfCommit()});
    } else {
      committed(i, status);
    }
  }
  AskAll(askers);
  for (const Asker& asker : askers) {
    committed(asker.index, asker.answer ? asker.sequence->ErrorOf(*asker.answer)
                                        : asker.sequence->SyncAfterCommit());
  }
}

}  // namespace kvasir
