// The verbs on sequences.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/shortage.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/sequence_answers.h"
#include "index/prefix_scope.h"

namespace kvasir::core {
namespace {

constexpr size_t kLabelBytesMax = 256;

}  // namespace

absl::StatusOr<Sequence*> KvCore::FindSequence(Session& session, uint32_t slot, uint32_t uid) {
  if (slot >= session.sequences.size() || session.sequences[slot] == nullptr) {
    return NotFound("unknown or closed sequence: sequence={}", slot);
  }
  Sequence* sequence = session.sequences[slot].get();
  if (sequence->identity().uid != uid) {
    return Aborted("stale sequence uid: sequence={} uid={} current={}", slot, uid,
                   sequence->identity().uid);
  }
  return sequence;
}

absl::StatusOr<Sequence*> KvCore::OpenSequence(Session& session, const OpenRequest& asked) {
  OpenRequest request = asked;
  const auto found = session.models.find(request.model_id);
  if (found == session.models.end()) {
    return NotFound("unknown model: model_id={}", request.model_id);
  }
  RegisteredModel& registered = *found->second;
  if (!registered.probed) {
    return FailedPrecondition("the model's layout is not probed yet: model_id={}",
                              request.model_id);
  }
  const Model& model = registered.model;
  if (request.label.size() > kLabelBytesMax) {
    return InvalidArgument("label is too long: bytes={} max={}", request.label.size(),
                           kLabelBytesMax);
  }
  const auto free = std::find(session.sequences.begin(), session.sequences.end(), nullptr);
  if (free == session.sequences.end()) {
    return ResourceExhausted("session has too many sequences: limits.sequences_per_session_max={}",
                             session.limits.sequences_max);
  }
  const uint32_t sequences_max = session.tenant.account.budget().counts.sequences;
  if (session.tenant.sequences >= sequences_max) {
    return WithShortage(
        ResourceExhausted("tenant has too many sequences: tenant={} sequences={} "
                          "tenant.sequences_max={}",
                          session.tenant.config.name, session.tenant.sequences, sequences_max),
        {"tenant.sequences_max", 1, "own sequences", kCountRetry});
  }
  KVASIR_RETURN_IF_ERROR(CheckHints(request.hints));
  if (request.snapshot && request.prefix != nullptr) {
    return InvalidArgument("a sequence goes on from a snapshot or from a prefix, not from both");
  }
  KVASIR_ASSIGN_OR_RETURN(const std::optional<LeasedStart> leased,
                          LeasedFor(session, model, request));
  if (leased && request.retention.empty()) request.retention = leased->retention;
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelProfile> profile, ProfileOf(model));
  bool awaits_load = false;
  KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<const Snapshot> snapshot,
                          SnapshotFor(session, model, request, &awaits_load));
  if (awaits_load) return nullptr;
  PolicyLanes lanes;
  if (snapshot == nullptr || !request.retention.empty()) {
    KVASIR_ASSIGN_OR_RETURN(lanes, LanesFor(session.tenant, model, profile, request));
  }
  if (snapshot != nullptr && !request.retention.empty() && lanes.spec != snapshot->retention) {
    return FailedPrecondition(
        "the snapshot was made with another retention: retention={} of_snapshot={}", lanes.spec,
        snapshot->retention);
  }
  const std::string lanes_spec = lanes.spec;
  PrefixStart start;
  Sequence::Identity identity;
  const bool shares =
      request.prefix != nullptr && snapshot == nullptr && (lanes.shareable || leased);
  if (shares) {
    KVASIR_ASSIGN_OR_RETURN(start, StartOf(session, model, request, lanes, leased));
    if (start.awaits_load) return nullptr;
    identity.form = start.asked_form;
    if (const std::optional<PrefixMatchOf>& prefix = start.found) {
      snapshot = prefix->hit.rows == prefix->hit.snapshot->rows
                     ? prefix->hit.snapshot
                     : prefix->hit.snapshot->Cut(prefix->hit.rows);
      identity.form = prefix->form;
    }
  }
  identity.id = next_sequence_id_++;
  identity.slot = static_cast<uint32_t>(free - session.sequences.begin());
  identity.uid = session.next_uid++;
  identity.label = request.label;
  identity.prefill_rows = request.prompt_rows;
  identity.retention = snapshot != nullptr ? snapshot->retention : lanes.spec;
  if (snapshot != nullptr) identity.condensed_from = snapshot->condensed_from;
  SequenceContext context;
  context.model = &model;
  context.tenant = &session.tenant;
  context.recent = &session.recent;
  context.recent_rows = &session.RecentOf(registered);
  context.kept_rows = &session.KeptOf(registered);
  context.saved_rows = &session.SavedOf(registered);
  context.device = model.device();
  context.extents = &session.extents;
  context.arena = &session.arena;
  context.d = session.memory.d;
  context.board = session.Board(identity.slot);
  context.desk = session.Desk(identity.slot);
  context.limits = &session.limits;
  context.profile = profile;
  if (request.max_rows > 0) context.max_rows = request.max_rows;
  const uint64_t id = identity.id;
  const uint32_t slot = identity.slot;
  if (snapshot != nullptr) {
    KVASIR_ASSIGN_OR_RETURN(*free, Sequence::Resume(context, std::move(identity), snapshot));
  } else {
    KVASIR_ASSIGN_OR_RETURN(*free, Sequence::Open(context, std::move(identity), std::move(lanes)));
  }
  if (request.loading != nullptr) offloads_.Settle(request.loading->move);
  ++session.tenant.sequences;
  const uint64_t prompt_rows =
      std::max<uint64_t>(request.prompt_rows, shares ? request.prefix->tokens.size() : 0);
  sequence_places_[id] = {&session, slot, request.hints.hints, RequestedAt(request.hints),
                          prompt_rows};
  session.Board(slot)->suspend_wanted.store(0, std::memory_order_relaxed);
  if (shares) SharePrefix(**free, request, lanes_spec, start.asked_form, start.found);
  CollectJob(**free);
  if (registered.probe) {
    session.RecentOf(registered).For(registered.probe_geometry).Free(registered.probe);
    registered.probe = {};
  }
  return free->get();
}

void KvCore::CollectJob(Sequence& sequence) {
  if (std::unique_ptr<SequenceJob> job = sequence.TakeJob()) jobs_.Push(std::move(job));
}

absl::Status KvCore::Look(Session& session, Sequence& sequence) {
  const absl::Status look = sequence.Look();
  if (look.ok()) return look;
  Violation(session, look);
  return PermissionDenied("session ended for a violation of the protocol: {}", MessageOf(look));
}

absl::StatusOr<Sequence*> KvCore::LookAtIdle(Session& session, uint32_t slot, uint32_t uid) {
  KVASIR_ASSIGN_OR_RETURN(Sequence* const sequence, FindSequence(session, slot, uid));
  if (sequence->job_out()) return nullptr;
  KVASIR_RETURN_IF_ERROR(Look(session, *sequence));
  return sequence;
}

SyncAnswer KvCore::Sync(Session& session, const SyncNeed& need) {
  SyncAnswer answer;
  absl::StatusOr<Sequence*> found = FindSequence(session, need.slot, need.uid);
  answer.status = found.ok() ? Look(session, **found) : found.status();
  if (!answer.status.ok()) return answer;
  Sequence& sequence = **found;
  const absl::Status advanced = sequence.Advance();
  CollectJob(sequence);
  const absl::Status granted = sequence.Grant(need.granted_rows);
  answer = AnswerOf(sequence);
  const bool table = !need.table_row || sequence.HasTableFor(*need.table_row);
  if (!granted.ok()) {
    // What others owe the tenant is on its way: the caller asks again after some progress.
    // Not so what a device lacks.
    const bool comes = absl::IsResourceExhausted(granted) && !sequence.job_out() &&
                       !sequence.on_device() && lending_.IsOwed(session.tenant.account);
    if (!comes) answer.status = granted;
    const std::optional<Shortage> shortage = ShortageOf(granted);
    if (shortage) AskSuspensions(session.tenant, shortage->missing, sequence.device());
  } else if (table) {
    answer.ready = true;
  } else if (!advanced.ok()) {
    answer.status = advanced;
  } else if (!sequence.job_out()) {
    answer.status = FailedPrecondition(
        "no table for this row follows from the rows written: table_row={} rows={}",
        *need.table_row, sequence.rows());
  }
  return answer;
}

TruncateAnswer KvCore::Truncate(Session& session, uint32_t slot, uint32_t uid, uint64_t rows) {
  TruncateAnswer answer;
  const absl::StatusOr<Sequence*> found = LookAtIdle(session, slot, uid);
  answer.status = found.status();
  if (!found.ok() || *found == nullptr) return answer;
  answer = TruncateIdle(session, **found, rows);
  CollectJob(**found);
  return answer;
}

SelectAnswer KvCore::SelectRows(Session& session, uint32_t slot, uint32_t uid, bool* asked) {
  SelectAnswer answer;
  const absl::StatusOr<Sequence*> found = LookAtIdle(session, slot, uid);
  answer.status = found.status();
  if (!found.ok() || *found == nullptr) return answer;
  Sequence& sequence = **found;
  absl::StatusOr<std::optional<std::vector<uint32_t>>> rows =
      sequence.SelectRows(session.next_uid, asked);
  CollectJob(sequence);
  answer.status = rows.status();
  if (!rows.ok() || !*rows) return answer;
  ++session.next_uid;
  answer.ready = true;
  answer.rows = **std::move(rows);
  answer.uid = sequence.identity().uid;
  return answer;
}

RetrieveAnswer KvCore::Retrieve(Session& session, uint32_t slot, uint32_t uid, uint32_t layer,
                                uint64_t mass_blocks, bool* asked) {
  RetrieveAnswer answer;
  // Without a Look(): nothing of the answer follows from the desk. A block is sealed at the row
  // where the table in use ends, and no step goes there before a Sync() has looked, so that a row
  // is never in a block and in view at once. What the desk says beyond that can wait for the next
  // one, and this is called in every layer of every step.
  absl::StatusOr<Sequence*> found = FindSequence(session, slot, uid);
  if (!found.ok()) {
    answer.status = found.status();
    return answer;
  }
  if ((*found)->job_out()) return answer;
  answer = RetrieveIdle(**found, layer, mass_blocks, asked);
  CollectJob(**found);
  return answer;
}

absl::StatusOr<bool> KvCore::CloseSequence(Session& session, uint32_t slot, uint32_t uid) {
  KVASIR_ASSIGN_OR_RETURN(Sequence * sequence, FindSequence(session, slot, uid));
  if (sequence->job_out()) return false;
  const SequencePlace& place = sequence_places_.at(sequence->identity().id);
  session.tenant.responses.Add(place.hints, place.ResponseRows(sequence->rows()));
  EraseSequence(session, slot);
  WithdrawSuspensions(session.tenant);
  Degrade(session.tenant);  // what it has used may be given up
  return true;
}

void KvCore::EraseSequence(Session& session, uint32_t slot) {
  sequence_places_.erase(session.sequences[slot]->identity().id);
  session.sequences[slot].reset();
  --session.tenant.sequences;
}

bool KvCore::PutBackJob(std::unique_ptr<SequenceJob> job) {
  if (condensings_.contains(job->sequence_id)) return PutBackCondensingJob(std::move(job));
  const SequencePlace place = sequence_places_.at(job->sequence_id);
  Sequence& sequence = *place.session->sequences[place.slot];
  if (!sequence.abandoned()) {
    jobs_.Push(std::move(job));
    return true;
  }
  sequence.CancelJob();
  job.reset();  // before the sequence: it may hold the last references to a tenant's groups
  if (place.session->ended) {
    DestroyIfIdle(place.session->id);
  } else {
    EraseSequence(*place.session, place.slot);
  }
  return false;
}

void KvCore::FinishJob(std::unique_ptr<SequenceJob> job) {
  if (condensings_.contains(job->sequence_id)) return FinishCondensingJob(std::move(job));
  const SequencePlace place =
      sequence_places_.at(job->sequence_id);  // sequences with a job out stay
  Sequence& sequence = *place.session->sequences[place.slot];
  sequence.Finish(*job);
  const bool advances = job->snapshot == nullptr;  // saved and resumed ones stay as they are
  job.reset();  // before the sequence: it may hold the last references to a tenant's groups
  if (place.session->ended) {
    DestroyIfIdle(place.session->id);
    return;
  }
  if (sequence.abandoned()) {
    EraseSequence(*place.session, place.slot);
    return;
  }
  if (!advances) return;
  // A decision by scores is followed by the copy at once; the engine waits for both. What cannot be
  // done now is tried again by its next call, which reports why.
  (void)sequence.Advance();
  CollectJob(sequence);
  Degrade(sequence.tenant());
}

void KvCore::ContinueAfterJob(uint64_t sequence_id) {
  const auto found = sequence_places_.find(sequence_id);
  if (found == sequence_places_.end()) return;
  const SequencePlace& place = found->second;
  Sequence& sequence = *place.session->sequences[place.slot];
  if (place.session->ended || sequence.job_out()) return;
  (void)sequence.Advance();
  CollectJob(sequence);
}

}  // namespace kvasir::core
