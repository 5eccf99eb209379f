// The verbs on sequences.
#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <absl/strings/escaping.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "index/prefix_scope.h"
#include "policies/policy_registry.h"
#include "policies/policy_spec.h"

#include <fmt/format.h>

namespace kvasir::core {
namespace {

constexpr size_t kLabelBytesMax = 256;

const char* NameOf(kernels::RowType type) {
  switch (type) {
    case kernels::RowType::kF16:
      return "f16";
    case kernels::RowType::kBF16:
      return "bf16";
    default:
      return "f32";
  }
}

// Layers whose attention has a sliding window of its own see that window and nothing else, whatever
// the retention spec says: it is for the layers with full attention. One lane for each window.
absl::Status GiveSlidingLayersTheirWindow(const Model& model, const PolicyContext& context,
                                          PolicyLanes* lanes) {
  std::map<uint32_t, uint32_t> lane_of_window;
  for (uint32_t layer = 0; layer < model.layers(); ++layer) {
    const uint32_t window = model.description().layers[layer].sliding_window;
    if (window == 0) continue;
    const auto [place, added] =
        lane_of_window.emplace(window, static_cast<uint32_t>(lanes->lanes.size()));
    if (added) {
      PolicyContext one = context;
      one.layers = 1;
      KVASIR_ASSIGN_OR_RETURN(
          PolicyLanes made,
          MakeLanes(
              fmt::format("streamingllm:start_size=0,recent_size={},positions=original", window),
              one));
      lanes->lanes.push_back(std::move(made.lanes.front()));
    }
    lanes->lane_of_layer[layer] = place->second;
  }
  // Lanes that lost all their layers go.
  std::vector<uint32_t> renamed(lanes->lanes.size());
  std::vector<std::unique_ptr<RetentionPolicy>> used;
  for (uint32_t lane = 0; lane < lanes->lanes.size(); ++lane) {
    const auto& of_layer = lanes->lane_of_layer;
    renamed[lane] = static_cast<uint32_t>(used.size());
    if (std::find(of_layer.begin(), of_layer.end(), lane) == of_layer.end()) continue;
    used.push_back(std::move(lanes->lanes[lane]));
  }
  for (uint32_t& lane : lanes->lane_of_layer) lane = renamed[lane];
  lanes->lanes = std::move(used);
  return absl::OkStatus();
}

// The model says enough for what the policies want to be told.
absl::Status CheckNeeds(const Model& model, const PolicyLanes& lanes) {
  for (uint32_t layer = 0; layer < model.layers(); ++layer) {
    const ScoreNeeds needs = lanes.lanes[lanes.lane_of_layer[layer]]->Needs();
    if ((needs.source == ScoreSource::kWindowQueries || needs.source == ScoreSource::kLocalMass) &&
        model.description().layers[layer].query_heads == 0) {
      return InvalidArgument(
          "retention needs queries, so the model has to say layers[{}].query_heads: retention={}",
          layer, lanes.spec);
    }
  }
  return absl::OkStatus();
}

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

absl::StatusOr<PolicyLanes> KvCore::LanesFor(const Tenant& tenant, const Model& model,
                                             const std::shared_ptr<const ModelProfile>& profile,
                                             const OpenRequest& request) const {
  const std::string& text = request.retention.empty() ? tenant.config.retention : request.retention;
  PolicyContext policy_context;
  policy_context.layers = model.layers();
  policy_context.separators = model.description().separators;
  policy_context.prompt_rows = request.prompt_rows;
  policy_context.dtype = NameOf(model.description().dtype);
  if (profile != nullptr) policy_context.profile = profile->digest;
  KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, MakeLanes(text, policy_context));
  // Who asks for nothing must not be refused for what it was given.
  if (lanes.encoding && !request.reads_records && request.retention.empty()) {
    KVASIR_ASSIGN_OR_RETURN(lanes, MakeLanes(WithoutEncoding(text), policy_context));
  }
  KVASIR_RETURN_IF_ERROR(GiveSlidingLayersTheirWindow(model, policy_context, &lanes));
  KVASIR_RETURN_IF_ERROR(CheckNeeds(model, lanes));
  if (lanes.encoding && !request.reads_records) {
    return FailedPrecondition("the engine does not read encoded rows: retention={}", lanes.spec);
  }
  if (lanes.lanes.size() > config_.session_limits.lanes_max) {
    return ResourceExhausted("retention has too many lanes: lanes={} limits.lanes_max={}",
                             lanes.lanes.size(), config_.session_limits.lanes_max);
  }
  if (lanes.positions == PositionMode::kInCache && !model.description().rope.present) {
    return InvalidArgument("positions=in_cache needs the model's rope: retention={}", text);
  }
  return lanes;
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
  if (request.snapshot && request.prefix != nullptr) {
    return InvalidArgument("a sequence goes on from a snapshot or from a prefix, not from both");
  }
  KVASIR_ASSIGN_OR_RETURN(const std::optional<Leased> leased, LeasedFor(session, model, request));
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
  sequence_places_[id] = {&session, slot};
  if (shares) SharePrefix(**free, request, lanes_spec, start.asked_form, start.found);
  CollectJob(**free);
  if (registered.probe) {
    session.recent.For(registered.probe_geometry.bytes).Free(registered.probe);
    registered.probe = {};
  }
  return free->get();
}

absl::StatusOr<std::shared_ptr<const ModelProfile>> KvCore::ProfileOf(const Model& model) const {
  const std::string digest = absl::BytesToHexString(model.description().weights_digest);
  for (const std::shared_ptr<const ModelProfile>& profile : config_.profiles) {
    if (profile->weights_digest != digest) continue;
    KVASIR_RETURN_IF_ERROR(CheckProfileFits(*profile, model.description()));
    return profile;
  }
  return nullptr;
}

void KvCore::CollectJob(Sequence& sequence) {
  if (std::unique_ptr<SequenceJob> job = sequence.TakeJob()) jobs_.push_back(std::move(job));
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
  answer.granted_rows = sequence.granted();
  answer.published_version = sequence.published_version();
  if (sequence.retrieval() != nullptr) answer.unseen_bytes = sequence.retrieval()->held_bytes();
  const bool table = !need.table_row || sequence.HasTableFor(*need.table_row);
  if (!granted.ok()) {
    answer.status = granted;
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

KvCore::TruncateAnswer KvCore::Truncate(Session& session, uint32_t slot, uint32_t uid,
                                        uint64_t rows) {
  TruncateAnswer answer;
  const absl::StatusOr<Sequence*> found = LookAtIdle(session, slot, uid);
  answer.status = found.status();
  if (!found.ok() || *found == nullptr) return answer;
  Sequence& sequence = **found;
  answer.ready = true;
  answer.status = sequence.Truncate(rows, session.next_uid);
  CollectJob(sequence);
  answer.rollback_floor = sequence.RollbackFloor();
  if (answer.status.ok()) ++session.next_uid;
  answer.uid = sequence.identity().uid;
  return answer;
}

KvCore::SelectAnswer KvCore::SelectRows(Session& session, uint32_t slot, uint32_t uid,
                                        bool* asked) {
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

KvCore::RetrieveAnswer KvCore::Retrieve(Session& session, uint32_t slot, uint32_t uid,
                                        uint32_t layer, uint64_t mass_blocks, bool* asked) {
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
  Sequence& sequence = **found;
  if (sequence.job_out()) return answer;
  auto blocks = sequence.Retrieve(layer, mass_blocks, asked);
  CollectJob(sequence);
  answer.status = blocks.status();
  if (!blocks.ok() || !*blocks) return answer;
  answer.ready = true;
  answer.blocks = **std::move(blocks);
  return answer;
}

absl::StatusOr<bool> KvCore::CloseSequence(Session& session, uint32_t slot, uint32_t uid) {
  KVASIR_ASSIGN_OR_RETURN(Sequence * sequence, FindSequence(session, slot, uid));
  if (sequence->job_out()) return false;
  EraseSequence(session, slot);
  Degrade(session.tenant);  // what it has used may be given up
  return true;
}

void KvCore::EraseSequence(Session& session, uint32_t slot) {
  sequence_places_.erase(session.sequences[slot]->identity().id);
  session.sequences[slot].reset();
}

std::unique_ptr<SequenceJob> KvCore::TakeJob() {
  const auto tenant_of = [this](const std::unique_ptr<SequenceJob>& job) -> Tenant& {
    return TenantOfJob(*job);
  };
  const auto next = std::min_element(jobs_.begin(), jobs_.end(), [&](const auto& a, const auto& b) {
    return tenant_of(a).served_at < tenant_of(b).served_at;
  });
  if (next == jobs_.end()) return nullptr;
  tenant_of(*next).served_at = ++turn_;
  std::unique_ptr<SequenceJob> job = std::move(*next);
  jobs_.erase(next);
  return job;
}

bool KvCore::PutBackJob(std::unique_ptr<SequenceJob> job) {
  if (condensings_.contains(job->sequence_id)) return PutBackCondensingJob(std::move(job));
  const Place place = sequence_places_.at(job->sequence_id);
  Sequence& sequence = *place.session->sequences[place.slot];
  if (!sequence.abandoned()) {
    jobs_.push_back(std::move(job));
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
  const Place place = sequence_places_.at(job->sequence_id);  // sequences with a job out stay
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

}  // namespace kvasir::core
