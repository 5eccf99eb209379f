#include "daemon/control/kv_cache_service.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
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

grpc::Status KvCacheService::Run(const grpc::ServerContext& context, const Verb& verb,
                                 const Instant* wake) {
  const absl::StatusOr<CallerRegistry::Caller> caller = callers_.CallerOf(context);
  if (!caller.ok()) {
    options_.audit->NoteRefusal({"engine_call", std::nullopt, "", {}}, caller.status());
    return ToGrpc(caller.status());
  }
  const core::Peer* const peer = &caller->peer;
  absl::StatusOr<CallSlots::Call> call = options_.calls->Enter(caller->slot);
  if (!call.ok()) return ToGrpc(call.status());
  const absl::StatusOr<core::SessionToken> token = TokenOf(context);
  std::string tenant_name;
  const Instant deadline =
      WaitDeadline(context, std::chrono::milliseconds(options_.rpc_deadline_max_ms));
  absl::Status status;
  for (int looks = 0;; ++looks) {
    bool done = true;
    uint64_t seen = 0;
    if (!call->Run(deadline)) {
      status = DeadlineExceeded("the deadline passed while calls of the same tenant ran");
      break;
    }
    {
      MutexLock lock(shared_.mutex);
      shared_.core.set_now(SystemClock().Now());
      seen = shared_.progress.seen();
      absl::StatusOr<core::Session*> session =
          token.ok() ? SessionOf(shared_.core, *token, *peer) : token.status();
      if (!session.ok()) {
        status = session.status();
        break;
      }
      core::Tenant& tenant = (*session)->tenant;
      tenant_name = tenant.config.name;
      status = verb(**session, &done);
      if (shared_.core.HasWork()) shared_.work.NotifyOne();
      if (shared_.core.TakeTierHint()) shared_.tier_work.NotifyAll();
      if (!status.ok()) {
        shared_.core.CountRejected(tenant);
        shared_.progress.NotifyAll();
        break;
      }
      if (done) break;
      if (shared_.stopping) {
        status = Unavailable("the daemon is stopping");
        break;
      }
    }
    call->Pause();
    // Progress is everybody's: who has looked in vain several times looks less often.
    if (looks >= kEagerLooks) std::this_thread::sleep_for(kLookPause);
    const Instant until = wake == nullptr ? deadline : std::min(deadline, *wake);
    if (!shared_.progress.WaitPast(seen, until) && SystemClock().Now() >= deadline) {
      status = DeadlineExceeded("the deadline passed while waiting");
      break;
    }
  }
  if (status.code() == absl::StatusCode::kPermissionDenied && shared_.wake_data_server) {
    shared_.wake_data_server();  // the session may have been ended
  }
  if (status.code() == absl::StatusCode::kPermissionDenied ||
      status.code() == absl::StatusCode::kUnauthenticated) {
    options_.audit->NoteRefusal({"engine_call", CredentialsOf(*peer), tenant_name, {}}, status);
  }
  if (options_.extents_taken) options_.extents_taken();
  return ToGrpc(status);
}

grpc::Status KvCacheService::RegisterModel(grpc::ServerContext* context,
                                           const v1::RegisterModelRequest* request,
                                           v1::RegisterModelResponse* response) {
  absl::StatusOr<core::ModelDescription> description = ToModelDescription(request->spec());
  return Run(*context, [&](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    KVASIR_RETURN_IF_ERROR(description.status());
    KVASIR_ASSIGN_OR_RETURN(const core::ModelHandle handle,
                            shared_.core.RegisterModel(session, *description));
    response->set_boot_epoch(options_.boot_epoch);
    response->set_model_id(handle.model_id);
    response->set_slots_per_block(handle.model->slots_per_block());
    response->set_model_fingerprint(handle.model->fingerprint().data(),
                                    handle.model->fingerprint().size());
    response->set_probe_extent(handle.probe_extent.slot);
    response->set_probe_generation(handle.probe_extent.generation);
    response->set_probe_offset(handle.probe_offset);
    return absl::OkStatus();
  });
}

grpc::Status KvCacheService::ProbeLayout(grpc::ServerContext* context,
                                         const v1::ProbeLayoutRequest* request,
                                         v1::ProbeLayoutResponse* response) {
  return Run(*context, [&](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    const uint64_t answer_seed = request->seed() ^ options_.boot_epoch;
    KVASIR_RETURN_IF_ERROR(
        shared_.core.ProbeLayout(session, request->model_id(), request->seed(), answer_seed));
    response->set_boot_epoch(options_.boot_epoch);
    response->set_seed(answer_seed);
    return absl::OkStatus();
  });
}

grpc::Status KvCacheService::OpenSequence(grpc::ServerContext* context,
                                          const v1::OpenSequenceRequest* request,
                                          v1::OpenSequenceResponse* response) {
  absl::StatusOr<std::optional<core::SnapshotId>> snapshot = SnapshotIdOf(request->snapshot_id());
  const absl::StatusOr<std::optional<core::PrefixKeys>> keys =
      KeysOf(*context, request->model_id(), request->has_prefix() ? &request->prefix() : nullptr);
  uint64_t opened = 0;  // id of the sequence, once it is there
  core::PrefixLoading loading;
  // So that a slow tier costs time, but never the call: half of it is left for what follows.
  const Instant now = SystemClock().Now();
  const Instant deadline =
      WaitDeadline(*context, std::chrono::milliseconds(options_.rpc_deadline_max_ms));
  Instant give_up_at =
      now + std::min<Instant::duration>(std::chrono::milliseconds(options_.load_wait_ms),
                                        (deadline - now) / 2);
  const grpc::Status status = Run(
      *context,
      [&](core::Session& session, bool* done) -> absl::Status {
        shared_.mutex.AssertHeld();
        if (SystemClock().Now() >= give_up_at) {
          loading.gave_up = true;
          give_up_at = Instant::max();
        }
        KVASIR_RETURN_IF_ERROR(snapshot.status());
        KVASIR_RETURN_IF_ERROR(keys.status());
        core::Sequence* sequence = nullptr;
        if (opened == 0) {
          core::OpenRequest open{
              request->model_id(), request->retention(),     request->prompt_rows(),
              request->label(),    request->max_rows(),      request->reads_records(),
              *snapshot,           request->snapshot_rows(), *keys ? &**keys : nullptr};
          KVASIR_ASSIGN_OR_RETURN(open.least_quality, QualityOf(request->least_quality()));
          open.loading = &loading;
          if (!request->lease_id().empty()) {
            KVASIR_ASSIGN_OR_RETURN(const auto lease,
                                    SixteenBytesOf("lease_id", request->lease_id()));
            open.lease = core::PrefixLeaseId{lease};
          }
          open.hints = HintsOf(request->hints());
          KVASIR_ASSIGN_OR_RETURN(sequence, shared_.core.OpenSequence(session, open));
          *done = sequence != nullptr;
          if (!*done) return absl::OkStatus();  // its prefix is on its way up from a tier
          opened = sequence->identity().id;
        } else {
          sequence = shared_.core.OpenedSequence(session, opened);
          if (sequence == nullptr) return Aborted("the sequence was closed while it was opened");
        }
        *done = !sequence->resuming();
        response->set_boot_epoch(options_.boot_epoch);
        if (*done) Fill(*sequence, request->prompt_rows(), response);
        return absl::OkStatus();
      },
      &give_up_at);
  if (!status.ok() && opened != 0) {
    MutexLock lock(shared_.mutex);
    shared_.core.GiveUpOpening(opened);
  }
  return status;
}

grpc::Status KvCacheService::Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                                  v1::SyncResponse* response) {
  return Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    if (request->needs_size() < 1 || request->needs_size() > kNeedsMax) {
      return InvalidArgument("needs count is out of bounds: value={} min=1 max={}",
                             request->needs_size(), kNeedsMax);
    }
    response->Clear();
    response->set_boot_epoch(options_.boot_epoch);
    const uint32_t session_id = session.id;
    for (const v1::SyncNeed& wanted : request->needs()) {
      core::SyncNeed need{wanted.sequence(), wanted.uid(), wanted.granted_rows(), std::nullopt};
      if (wanted.has_table_row()) need.table_row = wanted.table_row();
      const core::SyncAnswer answer = shared_.core.Sync(session, need);
      if (shared_.core.HasEnded(session_id)) return answer.status;
      v1::SyncResult* result = response->add_results();
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

grpc::Status KvCacheService::Truncate(grpc::ServerContext* context,
                                      const v1::TruncateRequest* request,
                                      v1::TruncateResponse* response) {
  return Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    const core::TruncateAnswer answer =
        shared_.core.Truncate(session, request->sequence(), request->uid(), request->rows());
    *done = answer.ready;
    response->set_boot_epoch(options_.boot_epoch);
    response->set_uid(answer.uid);
    response->set_rollback_floor(answer.rollback_floor);
    return answer.status;
  });
}

grpc::Status KvCacheService::SelectRows(grpc::ServerContext* context,
                                        const v1::SelectRowsRequest* request,
                                        v1::SelectRowsResponse* response) {
  bool asked = false;
  return Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    const core::SelectAnswer answer =
        shared_.core.SelectRows(session, request->sequence(), request->uid(), &asked);
    *done = answer.ready;
    response->set_boot_epoch(options_.boot_epoch);
    response->set_uid(answer.uid);
    response->mutable_rows()->Assign(answer.rows.begin(), answer.rows.end());
    return answer.status;
  });
}

grpc::Status KvCacheService::Retrieve(grpc::ServerContext* context,
                                      const v1::RetrieveRequest* request,
                                      v1::RetrieveResponse* response) {
  bool asked = false;
  return Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    const core::RetrieveAnswer answer =
        shared_.core.Retrieve(session, request->sequence(), request->uid(), request->layer(),
                              request->mass_blocks(), &asked);
    *done = answer.ready;
    response->set_boot_epoch(options_.boot_epoch);
    for (const core::Sequence::RetrievedBlock& block : answer.blocks) {
      v1::RetrievedBlock* out = response->add_blocks();
      out->set_block(block.block);
      out->set_extent(block.extent.slot);
      out->set_generation(block.extent.generation);
      out->set_offset(block.offset);
    }
    return answer.status;
  });
}

grpc::Status KvCacheService::SetHints(grpc::ServerContext* context,
                                      const v1::SetHintsRequest* request,
                                      v1::SetHintsResponse* response) {
  return Run(*context, [&](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    response->set_boot_epoch(options_.boot_epoch);
    return shared_.core.SetHints(session, request->sequence(), request->uid(),
                                 HintsOf(request->hints()));
  });
}

grpc::Status KvCacheService::CloseSequence(grpc::ServerContext* context,
                                           const v1::CloseSequenceRequest* request,
                                           v1::CloseSequenceResponse* response) {
  return Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    response->set_boot_epoch(options_.boot_epoch);
    KVASIR_ASSIGN_OR_RETURN(
        *done, shared_.core.CloseSequence(session, request->sequence(), request->uid()));
    return absl::OkStatus();
  });
}

grpc::Status KvCacheService::PutTokenTexts(grpc::ServerContext* context,
                                           const v1::PutTokenTextsRequest* request,
                                           v1::PutTokenTextsResponse* response) {
  return Run(*context, [&](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    uint64_t bytes = 0;
    for (const std::string& text : request->texts()) bytes += text.size();
    if (bytes > kTextsBytesMax) {
      return InvalidArgument("texts are too long for one call: bytes={} max={}", bytes,
                             kTextsBytesMax);
    }
    response->set_boot_epoch(options_.boot_epoch);
    return shared_.core.PutTokenTexts(session, request->model_id(), request->first_id(),
                                      {request->texts().begin(), request->texts().end()});
  });
}

}  // namespace kvasir
