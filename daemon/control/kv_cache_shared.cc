// KvCacheService: what outlives a sequence, snapshots and prefixes.
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "daemon/control/kv_cache_service.h"
#include "daemon/control/prefix_convert.h"
#include "daemon/control/snapshot_id.h"

namespace kvasir {

absl::StatusOr<std::optional<core::PrefixKeys>> KvCacheService::KeysOf(
    const PendingCall& call, uint32_t model_id, const v1::PrefixKey* prefix) {
  if (prefix == nullptr) return std::nullopt;
  KVASIR_ASSIGN_OR_RETURN(const core::SessionToken token,
                          TokenOf(call.context().client_metadata()));
  core::PrefixScopes scopes;
  {
    MutexLock lock(shared_.mutex);
    KVASIR_ASSIGN_OR_RETURN(core::Session* const session,
                            SessionOf(shared_.core, token, call.caller().peer));
    KVASIR_ASSIGN_OR_RETURN(scopes, shared_.core.ScopesOf(*session, model_id, prefix->salt()));
  }
  return core::HashPrefix(scopes, ToPrefixRequest(*prefix), std::this_thread::yield);
}

void KvCacheService::SaveSequence(
    RpcCall<v1::SaveSequenceRequest, v1::SaveSequenceResponse>& call) {
  core::SnapshotId id;
  const absl::Status random = FillRandom(id.bytes.data(), id.bytes.size());
  Run(call,
      [this, &call, id, random, asked = false](core::Session& session,
                                               bool* done) mutable -> absl::Status {
        shared_.mutex.AssertHeld();
        KVASIR_RETURN_IF_ERROR(random);
        const core::SaveAnswer answer =
            shared_.core.SaveSequence(session, call.request().sequence(), call.request().uid(), id,
                                      SystemClock().Now(), &asked);
        *done = answer.ready;
        call.response()->set_boot_epoch(options_.boot_epoch);
        if (!answer.ready) return answer.status;
        call.response()->set_snapshot_id(id.bytes.data(), id.bytes.size());
        call.response()->set_rows(answer.rows);
        call.response()->set_held_bytes(answer.held_bytes);
        return absl::OkStatus();
      });
}

void KvCacheService::MatchPrefix(RpcCall<v1::MatchPrefixRequest, v1::MatchPrefixResponse>& call) {
  Run(call,
      [this, &call, keys = KeysOf(call, call.request().model_id(), &call.request().prefix())](
          core::Session& session, bool*) -> absl::Status {
        shared_.mutex.AssertHeld();
        KVASIR_RETURN_IF_ERROR(keys.status());
        if (call.request().prefetch()) {
          KVASIR_RETURN_IF_ERROR(
              shared_.core.PrefetchPrefix(session, call.request().model_id(), **keys));
        }
        KVASIR_ASSIGN_OR_RETURN(
            const std::vector<core::PrefixMatchOf> found,
            shared_.core.MatchPrefix(session, call.request().model_id(), **keys));
        call.response()->set_boot_epoch(options_.boot_epoch);
        for (const core::PrefixMatchOf& one : found) {
          v1::PrefixForm* const form = call.response()->add_forms();
          form->set_retention(one.hit.snapshot->retention);
          form->set_condensed_from(one.hit.snapshot->condensed_from);
          form->set_quality(static_cast<v1::QualityClass>(one.quality));
          form->set_rows(one.hit.rows);
          form->set_is_public(one.tenant != &session.tenant);
          form->set_place(one.tier ? shared_.core.TierName(*one.tier) : one.hit.snapshot->place());
        }
        return absl::OkStatus();
      });
}

void KvCacheService::PublishPrefix(
    RpcCall<v1::PublishPrefixRequest, v1::PublishPrefixResponse>& call) {
  Run(call,
      [this, &call, asked = false](core::Session& session, bool* done) mutable -> absl::Status {
        shared_.mutex.AssertHeld();
        const core::SaveAnswer answer = shared_.core.PublishPrefix(
            session, call.request().sequence(), call.request().uid(), &asked);
        *done = answer.ready;
        call.response()->set_boot_epoch(options_.boot_epoch);
        call.response()->set_rows(answer.rows);
        call.response()->set_held_bytes(answer.held_bytes);
        return answer.status;
      });
}

void KvCacheService::DropSnapshot(
    RpcCall<v1::DropSnapshotRequest, v1::DropSnapshotResponse>& call) {
  Run(call,
      [this, &call, id = RequiredSnapshotIdOf(call.request().snapshot_id())](
          core::Session& session, bool*) -> absl::Status {
        shared_.mutex.AssertHeld();
        KVASIR_RETURN_IF_ERROR(id.status());
        call.response()->set_boot_epoch(options_.boot_epoch);
        return shared_.core.DropSnapshot(session, *id);
      });
}

}  // namespace kvasir
