// KvCacheService: what outlives a sequence, snapshots and prefixes.
#include <chrono>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "daemon/control/deadline.h"
#include "daemon/control/kv_cache_service.h"
#include "daemon/control/prefix_convert.h"
#include "daemon/control/snapshot_id.h"

namespace kvasir {

absl::StatusOr<std::optional<core::PrefixKeys>> KvCacheService::KeysOf(
    const grpc::ServerContext& context, uint32_t model_id, const v1::PrefixKey* prefix) {
  if (prefix == nullptr) return std::nullopt;
  KVASIR_ASSIGN_OR_RETURN(const CallerRegistry::Caller caller, callers_.CallerOf(context));
  KVASIR_ASSIGN_OR_RETURN(const core::SessionToken token, TokenOf(context));
  // A long prompt is hashed for milliseconds: that is running, too.
  KVASIR_ASSIGN_OR_RETURN(CallSlots::Call call, options_.calls->Enter(caller.slot));
  if (!call.Run(WaitDeadline(context, std::chrono::milliseconds(options_.rpc_deadline_max_ms)))) {
    return DeadlineExceeded("the deadline passed while calls of the same tenant ran");
  }
  core::PrefixScopes scopes;
  {
    MutexLock lock(shared_.mutex);
    KVASIR_ASSIGN_OR_RETURN(core::Session* const session,
                            SessionOf(shared_.core, token, caller.peer));
    KVASIR_ASSIGN_OR_RETURN(scopes, shared_.core.ScopesOf(*session, model_id, prefix->salt()));
  }
  return core::HashPrefix(scopes, ToPrefixRequest(*prefix));
}

grpc::Status KvCacheService::SaveSequence(grpc::ServerContext* context,
                                          const v1::SaveSequenceRequest* request,
                                          v1::SaveSequenceResponse* response) {
  core::SnapshotId id;
  const absl::Status random = FillRandom(id.bytes.data(), id.bytes.size());
  bool asked = false;
  return Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    KVASIR_RETURN_IF_ERROR(random);
    const core::SaveAnswer answer = shared_.core.SaveSequence(
        session, request->sequence(), request->uid(), id, SystemClock().Now(), &asked);
    *done = answer.ready;
    response->set_boot_epoch(options_.boot_epoch);
    if (!answer.ready) return answer.status;
    response->set_snapshot_id(id.bytes.data(), id.bytes.size());
    response->set_rows(answer.rows);
    response->set_held_bytes(answer.held_bytes);
    return absl::OkStatus();
  });
}

grpc::Status KvCacheService::MatchPrefix(grpc::ServerContext* context,
                                         const v1::MatchPrefixRequest* request,
                                         v1::MatchPrefixResponse* response) {
  const absl::StatusOr<std::optional<core::PrefixKeys>> keys =
      KeysOf(*context, request->model_id(), &request->prefix());
  return Run(*context, [&](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    KVASIR_RETURN_IF_ERROR(keys.status());
    if (request->prefetch()) {
      KVASIR_RETURN_IF_ERROR(shared_.core.PrefetchPrefix(session, request->model_id(), **keys));
    }
    KVASIR_ASSIGN_OR_RETURN(const std::vector<core::PrefixMatchOf> found,
                            shared_.core.MatchPrefix(session, request->model_id(), **keys));
    response->set_boot_epoch(options_.boot_epoch);
    for (const core::PrefixMatchOf& one : found) {
      v1::PrefixForm* const form = response->add_forms();
      form->set_retention(one.hit.snapshot->retention);
      form->set_condensed_from(one.hit.snapshot->condensed_from);
      form->set_quality(static_cast<v1::QualityClass>(one.quality));
      form->set_rows(one.hit.rows);
      form->set_is_public(one.tenant != &session.tenant);
      form->set_place(one.tier ? shared_.core.TierName(*one.tier) : "memory");
    }
    return absl::OkStatus();
  });
}

grpc::Status KvCacheService::PublishPrefix(grpc::ServerContext* context,
                                           const v1::PublishPrefixRequest* request,
                                           v1::PublishPrefixResponse* response) {
  bool asked = false;
  return Run(*context, [&](core::Session& session, bool* done) -> absl::Status {
    shared_.mutex.AssertHeld();
    const core::SaveAnswer answer =
        shared_.core.PublishPrefix(session, request->sequence(), request->uid(), &asked);
    *done = answer.ready;
    response->set_boot_epoch(options_.boot_epoch);
    response->set_rows(answer.rows);
    response->set_held_bytes(answer.held_bytes);
    return answer.status;
  });
}

grpc::Status KvCacheService::DropSnapshot(grpc::ServerContext* context,
                                          const v1::DropSnapshotRequest* request,
                                          v1::DropSnapshotResponse* response) {
  const absl::StatusOr<core::SnapshotId> id = RequiredSnapshotIdOf(request->snapshot_id());
  return Run(*context, [&](core::Session& session, bool*) -> absl::Status {
    shared_.mutex.AssertHeld();
    KVASIR_RETURN_IF_ERROR(id.status());
    response->set_boot_epoch(options_.boot_epoch);
    return shared_.core.DropSnapshot(session, *id);
  });
}

}  // namespace kvasir
