#include "daemon/shm/ring_command.h"

#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/shortage.h"
#include "base/status_macros.h"
#include "ring/command_check.h"
#include "ring/commands.h"

namespace kvasir {
namespace {

// 4,096 tokens: some 50 us, and as much as it costs to have another thread do it.
constexpr size_t kLongPayloadBytes = 16 << 10;
constexpr uint32_t kRetryMs = 100;  // where nothing else is known

template <typename Record>
void Append(const Record& record, std::vector<std::byte>* bytes) {
  const size_t at = bytes->size();
  bytes->resize(at + sizeof(record));
  std::memcpy(bytes->data() + at, &record, sizeof(record));
}

uint32_t RetryOf(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kResourceExhausted) return 0;
  const std::optional<Shortage> shortage = ShortageOf(status);
  return shortage ? static_cast<uint32_t>(shortage->retry_after.count()) : kRetryMs;
}

}  // namespace

bool RingCommand::IsLong() const {
  return static_cast<shm::CommandOp>(entry_.op) == shm::CommandOp::kMatchPrefix &&
         payload_.size() > kLongPayloadBytes;
}

void RingCommand::KeepPayload() {
  if (!kept_.empty()) return;
  kept_.assign(payload_.begin(), payload_.end());
  payload_ = kept_;
}

void RingCommand::Fail(ring::CompletionProducer& completions, const absl::Status& status) const {
  completions.Fail(ticket_, status, RetryOf(status));
}

absl::Status RingCommand::Prepare(SharedCore& shared, const core::SessionToken& token) {
  if (prepared_) return absl::OkStatus();
  prepared_ = true;
  if (static_cast<shm::CommandOp>(entry_.op) != shm::CommandOp::kMatchPrefix) {
    return absl::OkStatus();
  }
  const ring::MatchParts parts = ring::MatchPartsOf(payload_);
  core::PrefixScopes scopes;
  {
    MutexLock lock(shared.mutex);
    KVASIR_ASSIGN_OR_RETURN(core::Session* const session, shared.core.FindSession(token));
    const std::string salt(reinterpret_cast<const char*>(parts.record->salt),
                           parts.record->salt_bytes);
    KVASIR_ASSIGN_OR_RETURN(scopes, shared.core.ScopesOf(*session, parts.record->model_id, salt));
  }
  core::PrefixRequest request;
  request.tokens.assign(parts.tokens.begin(), parts.tokens.end());
  for (const shm::MatchExtraRecord& extra : parts.extras) {
    request.extras.push_back(
        {extra.row, {reinterpret_cast<const char*>(extra.digest), extra.digest_bytes}});
  }
  request.rows_max = parts.record->rows_max;
  keys_ = std::make_unique<std::optional<core::PrefixKeys>>();
  KVASIR_ASSIGN_OR_RETURN(*keys_,
                          core::HashPrefix(scopes, std::move(request), std::this_thread::yield));
  return absl::OkStatus();
}

template <typename Verbs>
std::optional<RingCommand::Outcome> RingCommand::Sync(Verbs& verbs, core::Session& session) {
  core::SyncNeed need{entry_.seq, entry_.seq_uid, entry_.arg[0], std::nullopt};
  if ((entry_.flags & shm::kSyncHasTableRow) != 0) need.table_row = entry_.arg[1];
  const std::optional<core::SyncAnswer> answer = verbs.Sync(session, need);
  if (!answer) return std::nullopt;
  return Outcome{answer->status,
                 answer->ready || entry_.deadline_ms == 0,
                 {{answer->granted_rows, answer->published_version, answer->unseen_bytes}}};
}

template <typename Verbs>
std::optional<RingCommand::Outcome> RingCommand::SyncMany(Verbs& verbs, core::Session& session,
                                                          std::vector<std::byte>* bytes) {
  Outcome outcome;
  outcome.done = true;
  const uint32_t session_id = session.id;
  for (const shm::SyncNeedRecord& record : ring::SyncNeedsOf(payload_)) {
    core::SyncNeed need{record.seq, record.uid, record.granted_rows, std::nullopt};
    if ((record.flags & shm::kSyncHasTableRow) != 0) need.table_row = record.table_row;
    const std::optional<core::SyncAnswer> answer = verbs.Sync(session, need);
    if (!answer) return std::nullopt;  // those before ask for the same once more, which is harmless
    if (verbs.HasEnded(session_id)) return Outcome{answer->status, true};
    shm::SyncResultRecord result{};
    result.status = static_cast<int32_t>(answer->status.code());
    result.retry_ms = RetryOf(answer->status);
    result.granted_rows = answer->granted_rows;
    result.published_version = answer->published_version;
    result.unseen_bytes = answer->unseen_bytes;
    Append(result, bytes);
    outcome.done = outcome.done && (answer->ready || !answer->status.ok());
  }
  outcome.done = outcome.done || entry_.deadline_ms == 0;
  return outcome;
}

RingCommand::Outcome RingCommand::Match(core::KvCore& core, core::Session& session,
                                        std::vector<std::byte>* bytes) {
  const shm::MatchRecord& record = *ring::MatchPartsOf(payload_).record;
  const core::PrefixKeys& keys = **keys_;
  if ((record.flags & shm::kMatchPrefetch) != 0) {
    const absl::Status begun = core.PrefetchPrefix(session, record.model_id, keys);
    if (!begun.ok()) return {begun, true};
  }
  const absl::StatusOr<std::vector<core::PrefixMatchOf>> found =
      core.MatchPrefix(session, record.model_id, keys);
  if (!found.ok()) return {found.status(), true};
  std::vector<ring::MatchForm> forms;
  for (const core::PrefixMatchOf& one : *found) {
    forms.push_back({one.hit.rows, static_cast<uint32_t>(one.quality),
                     one.tenant != &session.tenant, one.hit.snapshot->retention,
                     one.tier ? core.TierName(*one.tier) : one.hit.snapshot->place(),
                     one.hit.snapshot->condensed_from});
  }
  uint64_t in_answer = 0;
  *bytes = ring::MakeMatchAnswer(forms, ticket_.answer_bytes_max, &in_answer);
  return {absl::OkStatus(), true, {{in_answer, forms.size(), 0}}};
}

template <typename Verbs>
std::optional<RingCommand::Outcome> RingCommand::Retrieve(Verbs& verbs, core::Session& session,
                                                          std::vector<std::byte>* bytes) {
  const std::optional<core::RetrieveAnswer> answer =
      verbs.Retrieve(session, entry_.seq, entry_.seq_uid, static_cast<uint32_t>(entry_.arg[0]),
                     entry_.arg[1], &asked_);
  if (!answer) return std::nullopt;
  for (const core::Sequence::RetrievedBlock& block : answer->blocks) {
    shm::RetrievedBlockRecord record{};
    record.block = block.block;
    record.extent = block.extent.slot;
    record.generation = block.extent.generation;
    record.offset = block.offset;
    Append(record, bytes);
  }
  return Outcome{answer->status, answer->ready, {{answer->blocks.size(), 0, 0}}};
}

template <typename Verbs>
std::optional<RingCommand::Outcome> RingCommand::Truncate(Verbs& verbs, core::Session& session) {
  const std::optional<core::TruncateAnswer> answer =
      verbs.Truncate(session, entry_.seq, entry_.seq_uid, entry_.arg[0]);
  if (!answer) return std::nullopt;
  return Outcome{answer->status, answer->ready, {{answer->uid, answer->rollback_floor, 0}}};
}

bool RingCommand::MayRunInShare() const {
  switch (static_cast<shm::CommandOp>(entry_.op)) {
    case shm::CommandOp::kSync:
    case shm::CommandOp::kSyncMany:
    case shm::CommandOp::kRetrieve:
    case shm::CommandOp::kTruncate:
      return true;
    default:
      return false;
  }
}

template <typename Verbs>
std::optional<RingCommand::Outcome> RingCommand::DoAtBorder(Verbs& verbs, core::Session& session,
                                                            std::vector<std::byte>* bytes) {
  switch (static_cast<shm::CommandOp>(entry_.op)) {
    case shm::CommandOp::kSync:
      return Sync(verbs, session);
    case shm::CommandOp::kSyncMany:
      return SyncMany(verbs, session, bytes);
    case shm::CommandOp::kRetrieve:
      return Retrieve(verbs, session, bytes);
    case shm::CommandOp::kTruncate:
      return Truncate(verbs, session);
    default:
      return std::nullopt;
  }
}

RingCommand::Outcome RingCommand::Do(core::KvCore& core, core::Session& session,
                                     std::vector<std::byte>* bytes) {
  switch (static_cast<shm::CommandOp>(entry_.op)) {
    case shm::CommandOp::kSync:
    case shm::CommandOp::kSyncMany:
    case shm::CommandOp::kRetrieve:
    case shm::CommandOp::kTruncate:
      return *DoAtBorder(core, session, bytes);
    case shm::CommandOp::kMatchPrefix:
      return Match(core, session, bytes);
    case shm::CommandOp::kPublishPrefix: {
      const core::SaveAnswer answer =
          core.PublishPrefix(session, entry_.seq, entry_.seq_uid, &asked_);
      return {answer.status, answer.ready, {{answer.rows, answer.held_bytes, 0}}};
    }
    case shm::CommandOp::kCloseSequence: {
      const absl::StatusOr<bool> closed = core.CloseSequence(session, entry_.seq, entry_.seq_uid);
      return {closed.status(), closed.value_or(true)};
    }
  }
  return {Internal("a command that was not checked: op={}", entry_.op), true};
}

std::optional<bool> RingCommand::RunInShare(core::TenantVerbs& verbs, core::Session& session,
                                            ring::CompletionProducer& completions, Instant now,
                                            absl::Status* status) {
  std::vector<std::byte> bytes;
  std::optional<Outcome> outcome = DoAtBorder(verbs, session, &bytes);
  if (!outcome) return std::nullopt;
  if (outcome->status.ok() && !outcome->done) {
    if (now < deadline_) return false;
    return std::nullopt;  // that it is over is said there
  }
  *status = outcome->status;
  if (!status->ok()) {
    Fail(completions, *status);
    return true;
  }
  outcome->answer.bytes = bytes;
  completions.Complete(ticket_, outcome->answer);
  return true;
}

bool RingCommand::Run(SharedCore& shared, core::Session& session,
                      ring::CompletionProducer& completions, Instant now, absl::Status* status) {
  std::vector<std::byte> bytes;
  Outcome outcome = Do(shared.core, session, &bytes);
  if (outcome.status.ok() && !outcome.done) {
    if (now < deadline_) return false;
    outcome.status = DeadlineExceeded("the deadline passed while waiting");
  }
  *status = outcome.status;
  if (!outcome.status.ok()) {
    Fail(completions, outcome.status);
    return true;
  }
  outcome.answer.bytes = bytes;
  completions.Complete(ticket_, outcome.answer);
  return true;
}

}  // namespace kvasir
