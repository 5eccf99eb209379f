#include "daemon/control/kv_cache_service.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/control/deadline.h"
#include "daemon/control/model_convert.h"
#include "daemon/control/prefix_convert.h"
#include "daemon/control/snapshot_id.h"
#include "daemon/control/status_convert.h"
#include "daemon/control/wire_id.h"

namespace kvasir {
namespace {

constexpr int kNeedsMax = 1024;
constexpr uint64_t kTextsBytesMax = 1 << 20;  // of one call
constexpr int kEagerLooks = 16;
constexpr std::chrono::milliseconds kLookPause{1};

// The wire says codecs as the kernels do.
static_assert(static_cast<int>(kernels::Codec::kAsWritten) == v1::RECORD_CODEC_AS_WRITTEN &&
              static_cast<int>(kernels::Codec::kInt8) == v1::RECORD_CODEC_INT8 &&
              static_cast<int>(kernels::Codec::kInt4) == v1::RECORD_CODEC_INT4 &&
              static_cast<int>(kernels::Codec::kTokenMixed) == v1::RECORD_CODEC_TOKEN_MIXED);

core::SequenceHints HintsOf(const v1::SequenceHints& said) {
  core::SequenceHints hints;
  hints.hints.priority = said.priority();
  if (said.has_predicted_rows()) hints.hints.predicted_rows = said.predicted_rows();
  if (said.has_predicted_rank()) hints.hints.predicted_rank = said.predicted_rank();
  hints.age_ms = said.request_age_ms();
  return hints;
}

void Fill(const core::LaneReport& report, uint64_t prompt_rows, v1::LaneReport* out) {
  const core::Lane& lane = *report.lane;
  const shm::ReportShape& shape = lane.report_geometry.shape;
  out->set_position_sets(lane.kept_shapes->block.trailer.position_sets);
  out->set_mass_sets(shape.mass_sets);
  out->set_kept_rows_max(shape.kept_rows_max);
  out->set_mass_decay(lane.needs.decay);
  out->set_query_rows(shape.query_rows);
  out->set_first_query_row(prompt_rows - std::min<uint64_t>(prompt_rows, shape.query_rows));
  for (const uint32_t floats : shape.query_floats) out->add_query_floats(floats);
  out->set_extent(report.extent.slot);
  out->set_generation(report.extent.generation);
  out->set_offset(lane.report.offset);
  if (const shm::GroupGeometry& kept = lane.kept_shapes->block; kept.v_bits > 0) {
    out->mutable_value_codes()->set_bits(kept.v_bits);
    for (const shm::LayerRowBytes& bytes : kept.row_bytes) {
      out->mutable_value_codes()->add_row_bytes(bytes.v);
    }
  }
  if (lane.records == nullptr) return;
  v1::LaneRecords* const records = out->mutable_records();
  records->set_rows(lane.records->geometry.slots);
  for (const core::LaneRecords::Layer& layer : lane.records->layers) {
    v1::LayerRecords* const of_layer = records->add_layers();
    of_layer->set_k_codec(static_cast<v1::RecordCodec>(layer.k.codec));
    of_layer->set_v_codec(static_cast<v1::RecordCodec>(layer.v.codec));
    of_layer->set_k_planes(layer.k.code_planes);
    of_layer->set_v_planes(layer.v.code_planes);
    of_layer->set_k_bytes(static_cast<uint32_t>(kernels::RecordBytes(layer.k)));
    of_layer->set_v_bytes(static_cast<uint32_t>(kernels::RecordBytes(layer.v)));
  }
}

void Fill(const core::Sequence& sequence, uint64_t prompt_rows, v1::OpenSequenceResponse* out) {
  out->set_sequence(sequence.identity().slot);
  out->set_uid(sequence.identity().uid);
  out->set_sequence_id(sequence.identity().id);
  out->set_retention(sequence.identity().retention);
  out->set_condensed_from(sequence.identity().condensed_from);
  for (const uint32_t lane : sequence.LaneOfLayer()) out->add_lane_of_layer(lane);
  out->set_unrotated(sequence.positions() == PositionMode::kUnrotated);
  if (const std::optional<uint32_t> layer = sequence.filter_layer()) {
    out->set_has_filter_layer(true);
    out->set_filter_layer(*layer);
  }
  if (const core::Retrieval* const retrieval = sequence.retrieval()) {
    out->set_far_position(retrieval->config().n_local - 1);
    out->set_step_rows_max(static_cast<uint32_t>(retrieval->config().exc_block_size));
    out->set_retrieved_rows(static_cast<uint32_t>(retrieval->config().block_size));
    out->set_retrieved_blocks_max(retrieval->config().topk);
  }
  for (const core::LaneReport& report : sequence.Reports()) {
    Fill(report, prompt_rows, out->add_lanes());
  }
  out->set_rows(sequence.rows());
}

}  // namespace

void KvCacheService::Run(PendingCall& call, Verb verb,
                         absl::AnyInvocable<void(const absl::Status&)> at_end) {
  VerbTrial& trial = call.trial();
  trial.verb = std::move(verb);
  trial.at_end = std::move(at_end);
  trial.token = TokenOf(call.context().client_metadata());
  trial.deadline = DeadlineOf(call);
  if (call.length() == CallExecutor::kShort) return Look(call);
  // Nobody is to wait for a lock of who is behind all others.
  call.executor().Run(call.caller().slot, [this, &call] { Look(call); });
}

Instant KvCacheService::DeadlineOf(const PendingCall& call) const {
  return WaitDeadline(call.context(), std::chrono::milliseconds(options_.rpc_deadline_max_ms));
}

absl::Status KvCacheService::Try(PendingCall& call, bool* done, uint64_t* seen) {
  VerbTrial& trial = call.trial();
  MutexLock lock(shared_.mutex);
  shared_.core.set_now(SystemClock().Now());
  *seen = shared_.progress.seen();
  KVASIR_RETURN_IF_ERROR(trial.token.status());
  KVASIR_ASSIGN_OR_RETURN(core::Session* const session,
                          SessionOf(shared_.core, *trial.token, call.caller().peer));
  core::Tenant& tenant = session->tenant;
  trial.tenant = tenant.config.name;
  const absl::Status status = trial.verb(*session, done);
  if (shared_.core.TakeTierHint()) shared_.tier_work.NotifyAll();
  if (!status.ok()) {
    shared_.core.CountRejected(tenant);
    shared_.progress.NotifyAll();
    return status;
  }
  if (!*done && shared_.stopping) return Unavailable("the daemon is stopping");
  return status;
}

void KvCacheService::Look(PendingCall& call) {
  if (call.cancelled()) return End(call, absl::CancelledError("the caller has gone"));
  VerbTrial& trial = call.trial();
  const Instant now = SystemClock().Now();
  if (trial.looks > 0 && now >= trial.deadline) {
    return End(call, DeadlineExceeded("the deadline passed while waiting"));
  }
  bool done = true;
  uint64_t seen = 0;
  const absl::Status status = Try(call, &done, &seen);
  if (!status.ok() || done) return End(call, status);
  // Progress is everybody's: who has looked in vain several times looks less often.
  CallExecutor::Wait wait{seen, now, std::min(trial.deadline, trial.wake), &call.cancelled()};
  if (++trial.looks > kEagerLooks) wait.not_before += kLookPause;
  if (options_.extents_taken) options_.extents_taken();
  call.executor().RunAfter(call.caller().slot, wait, [this, &call] { Look(call); });
}

void KvCacheService::End(PendingCall& call, const absl::Status& status) {
  VerbTrial& trial = call.trial();
  if (status.code() == absl::StatusCode::kPermissionDenied && shared_.wake_data_server) {
    shared_.wake_data_server();  // the session may have been ended
  }
  if (status.code() == absl::StatusCode::kPermissionDenied ||
      status.code() == absl::StatusCode::kUnauthenticated) {
    options_.audit->NoteRefusal(
        {"engine_call", CredentialsOf(call.caller().peer), trial.tenant, {}}, status);
  }
  if (options_.extents_taken) options_.extents_taken();
  if (trial.at_end) trial.at_end(status);
  call.End(status);
}

void KvCacheService::RegisterModel(
    RpcCall<v1::RegisterModelRequest, v1::RegisterModelResponse>& call) {
  Run(call,
      [this, &call, description = ToModelDescription(call.request().spec())](
          core::Session& session, bool*) -> absl::Status {
        shared_.mutex.AssertHeld();
        KVASIR_RETURN_IF_ERROR(description.status());
        KVASIR_ASSIGN_OR_RETURN(
            const core::ModelHandle handle,
            shared_.core.RegisterModel(session, *description, call.request().pool()));
        call.response()->set_boot_epoch(options_.boot_epoch);
        call.response()->set_model_id(handle.model_id);
        call.response()->set_slots_per_block(handle.model->slots_per_block());
        call.response()->set_model_fingerprint(handle.model->fingerprint().data(),
                                               handle.model->fingerprint().size());
        call.response()->set_probe_extent(handle.probe_extent.slot);
        call.response()->set_probe_generation(handle.probe_extent.generation);
        call.response()->set_probe_offset(handle.probe_offset);
        return absl::OkStatus();
      });
}

void KvCacheService::ProbeLayout(RpcCall<v1::ProbeLayoutRequest, v1::ProbeLayoutResponse>& call) {
  Run(call, [this, &call](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    const uint64_t answer_seed = call.request().seed() ^ options_.boot_epoch;
    KVASIR_RETURN_IF_ERROR(shared_.core.ProbeLayout(session, call.request().model_id(),
                                                    call.request().seed(), answer_seed));
    call.response()->set_boot_epoch(options_.boot_epoch);
    call.response()->set_seed(answer_seed);
    return absl::OkStatus();
  });
}

void KvCacheService::OpenSequence(
    RpcCall<v1::OpenSequenceRequest, v1::OpenSequenceResponse>& call) {
  struct State {
    absl::StatusOr<std::optional<core::SnapshotId>> snapshot;
    absl::StatusOr<std::optional<core::PrefixKeys>> keys;
    uint64_t opened = 0;  // id of the sequence, once it is there
    core::PrefixLoading loading = {};
  };
  const v1::OpenSequenceRequest& request = call.request();
  auto state = std::make_shared<State>(
      State{SnapshotIdOf(request.snapshot_id()),
            KeysOf(call, request.model_id(), request.has_prefix() ? &request.prefix() : nullptr)});
  // So that a slow tier costs time, but never the call: half of it is left for what follows.
  const Instant now = SystemClock().Now();
  call.trial().wake =
      now + std::min<Instant::duration>(std::chrono::milliseconds(options_.load_wait_ms),
                                        (DeadlineOf(call) - now) / 2);
  Run(
      call,
      [this, &call, &request, state](core::Session& session, bool* done) -> absl::Status {
        shared_.mutex.AssertHeld();
        if (SystemClock().Now() >= call.trial().wake) {
          state->loading.gave_up = true;
          call.trial().wake = Instant::max();
        }
        KVASIR_RETURN_IF_ERROR(state->snapshot.status());
        KVASIR_RETURN_IF_ERROR(state->keys.status());
        core::Sequence* sequence = nullptr;
        if (state->opened == 0) {
          core::OpenRequest open{
              request.model_id(), request.retention(),     request.prompt_rows(),
              request.label(),    request.max_rows(),      request.reads_records(),
              *state->snapshot,   request.snapshot_rows(), *state->keys ? &**state->keys : nullptr};
          KVASIR_ASSIGN_OR_RETURN(open.least_quality, QualityOf(request.least_quality()));
          open.loading = &state->loading;
          if (!request.lease_id().empty()) {
            KVASIR_ASSIGN_OR_RETURN(const auto lease,
                                    SixteenBytesOf("lease_id", request.lease_id()));
            open.lease = core::PrefixLeaseId{lease};
          }
          open.hints = HintsOf(request.hints());
          KVASIR_ASSIGN_OR_RETURN(sequence, shared_.core.OpenSequence(session, open));
          *done = sequence != nullptr;
          if (!*done) return absl::OkStatus();  // its prefix is on its way up from a tier
          state->opened = sequence->identity().id;
        } else {
          sequence = shared_.core.OpenedSequence(session, state->opened);
          if (sequence == nullptr) return Aborted("the sequence was closed while it was opened");
        }
        *done = !sequence->resuming();
        if (*done) KVASIR_RETURN_IF_ERROR(sequence->failure());  // its rows are not there
        call.response()->set_boot_epoch(options_.boot_epoch);
        if (*done) Fill(*sequence, request.prompt_rows(), call.response());
        return absl::OkStatus();
      },
      [this, state](const absl::Status& status) {
        if (status.ok() || (state->opened == 0 && state->loading.move == 0)) return;
        MutexLock lock(shared_.mutex);
        shared_.core.GiveUpOpening(state->opened, &state->loading);
      });
}

void KvCacheService::Sync(RpcCall<v1::SyncRequest, v1::SyncResponse>& call) {
  Run(call, [this, &call](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    if (call.request().needs_size() < 1 || call.request().needs_size() > kNeedsMax) {
      return InvalidArgument("needs count is out of bounds: value={} min=1 max={}",
                             call.request().needs_size(), kNeedsMax);
    }
    call.response()->Clear();
    call.response()->set_boot_epoch(options_.boot_epoch);
    const uint32_t session_id = session.id;
    for (const v1::SyncNeed& wanted : call.request().needs()) {
      core::SyncNeed need{wanted.sequence(), wanted.uid(), wanted.granted_rows(), std::nullopt};
      if (wanted.has_table_row()) need.table_row = wanted.table_row();
      const core::SyncAnswer answer = shared_.core.Sync(session, need);
      if (shared_.core.HasEnded(session_id)) return answer.status;
      v1::SyncResult* result = call.response()->add_results();
      result->set_code(static_cast<int32_t>(answer.status.code()));
      result->set_message(MessageOf(answer.status));
      result->set_granted_rows(answer.granted_rows);
      result->set_published_version(answer.published_version);
      result->set_unseen_bytes(answer.unseen_bytes);
      result->set_retry_ms(RetryMsOf(answer.status));
      if (const std::optional<Shortage> shortage = ShortageOf(answer.status)) {
        kvasir::Fill(*shortage, result->mutable_shortage());
      }
      *done = *done && (answer.ready || !answer.status.ok());
    }
    return absl::OkStatus();
  });
}

void KvCacheService::Truncate(RpcCall<v1::TruncateRequest, v1::TruncateResponse>& call) {
  Run(call, [this, &call](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    const core::TruncateAnswer answer = shared_.core.Truncate(
        session, call.request().sequence(), call.request().uid(), call.request().rows());
    *done = answer.ready;
    call.response()->set_boot_epoch(options_.boot_epoch);
    call.response()->set_uid(answer.uid);
    call.response()->set_rollback_floor(answer.rollback_floor);
    return answer.status;
  });
}

void KvCacheService::SelectRows(RpcCall<v1::SelectRowsRequest, v1::SelectRowsResponse>& call) {
  Run(call,
      [this, &call, asked = false](core::Session& session, bool* done) mutable -> absl::Status {
        shared_.mutex.AssertHeld();
        const core::SelectAnswer answer = shared_.core.SelectRows(
            session, call.request().sequence(), call.request().uid(), &asked);
        *done = answer.ready;
        call.response()->set_boot_epoch(options_.boot_epoch);
        call.response()->set_uid(answer.uid);
        call.response()->mutable_rows()->Assign(answer.rows.begin(), answer.rows.end());
        return answer.status;
      });
}

void KvCacheService::Retrieve(RpcCall<v1::RetrieveRequest, v1::RetrieveResponse>& call) {
  Run(call,
      [this, &call, asked = false](core::Session& session, bool* done) mutable -> absl::Status {
        shared_.mutex.AssertHeld();
        const core::RetrieveAnswer answer =
            shared_.core.Retrieve(session, call.request().sequence(), call.request().uid(),
                                  call.request().layer(), call.request().mass_blocks(), &asked);
        *done = answer.ready;
        call.response()->set_boot_epoch(options_.boot_epoch);
        for (const core::Sequence::RetrievedBlock& block : answer.blocks) {
          v1::RetrievedBlock* out = call.response()->add_blocks();
          out->set_block(block.block);
          out->set_extent(block.extent.slot);
          out->set_generation(block.extent.generation);
          out->set_offset(block.offset);
        }
        return answer.status;
      });
}

void KvCacheService::SetHints(RpcCall<v1::SetHintsRequest, v1::SetHintsResponse>& call) {
  Run(call, [this, &call](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    call.response()->set_boot_epoch(options_.boot_epoch);
    return shared_.core.SetHints(session, call.request().sequence(), call.request().uid(),
                                 HintsOf(call.request().hints()));
  });
}

void KvCacheService::CloseSequence(
    RpcCall<v1::CloseSequenceRequest, v1::CloseSequenceResponse>& call) {
  Run(call, [this, &call](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    call.response()->set_boot_epoch(options_.boot_epoch);
    KVASIR_ASSIGN_OR_RETURN(*done, shared_.core.CloseSequence(session, call.request().sequence(),
                                                              call.request().uid()));
    return absl::OkStatus();
  });
}

void KvCacheService::PutTokenTexts(
    RpcCall<v1::PutTokenTextsRequest, v1::PutTokenTextsResponse>& call) {
  Run(call, [this, &call](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    uint64_t bytes = 0;
    for (const std::string& text : call.request().texts()) bytes += text.size();
    if (bytes > kTextsBytesMax) {
      return InvalidArgument("texts are too long for one call: bytes={} max={}", bytes,
                             kTextsBytesMax);
    }
    call.response()->set_boot_epoch(options_.boot_epoch);
    return shared_.core.PutTokenTexts(
        session, call.request().model_id(), call.request().first_id(),
        {call.request().texts().begin(), call.request().texts().end()});
  });
}

}  // namespace kvasir
