// KvCacheService: what engines ask of KvCore by gRPC. Converts, waits, and decides nothing.
#ifndef KVASIR_DAEMON_CONTROL_KV_CACHE_SERVICE_H_
#define KVASIR_DAEMON_CONTROL_KV_CACHE_SERVICE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "daemon/control/audit_log.h"
#include "daemon/control/rpc_call.h"
#include "daemon/shared_core.h"
#include "kvasir/v1/kv_cache.pb.h"

namespace kvasir {

struct KvCacheServiceOptions {
  uint64_t boot_epoch = 0;
  uint32_t rpc_deadline_max_ms = 60'000;  // no call waits longer, whatever its deadline says
  std::function<void()> extents_taken;    // the pool's stock may be low
  uint32_t load_wait_ms = 5'000;          // of an open, for a tier
  AuditLog* audit = nullptr;              // of refusals; must outlive the service
};

// Thread-safe. `shared` must outlive it. Each verb is begun as a task of the call's executor, and
// ends the call, at once or later.
class KvCacheService {
 public:
  KvCacheService(SharedCore& shared, KvCacheServiceOptions options)
      : shared_(shared), options_(std::move(options)) {}

  void RegisterModel(RpcCall<v1::RegisterModelRequest, v1::RegisterModelResponse>& call);
  void ProbeLayout(RpcCall<v1::ProbeLayoutRequest, v1::ProbeLayoutResponse>& call);
  void OpenSequence(RpcCall<v1::OpenSequenceRequest, v1::OpenSequenceResponse>& call);
  void Sync(RpcCall<v1::SyncRequest, v1::SyncResponse>& call);
  void Truncate(RpcCall<v1::TruncateRequest, v1::TruncateResponse>& call);
  void SelectRows(RpcCall<v1::SelectRowsRequest, v1::SelectRowsResponse>& call);
  void Retrieve(RpcCall<v1::RetrieveRequest, v1::RetrieveResponse>& call);
  void SaveSequence(RpcCall<v1::SaveSequenceRequest, v1::SaveSequenceResponse>& call);
  void MatchPrefix(RpcCall<v1::MatchPrefixRequest, v1::MatchPrefixResponse>& call);
  void PublishPrefix(RpcCall<v1::PublishPrefixRequest, v1::PublishPrefixResponse>& call);
  void LeasePrefix(RpcCall<v1::LeasePrefixRequest, v1::LeasePrefixResponse>& call);
  void ReleaseLease(RpcCall<v1::ReleaseLeaseRequest, v1::ReleaseLeaseResponse>& call);
  void DropSnapshot(RpcCall<v1::DropSnapshotRequest, v1::DropSnapshotResponse>& call);
  void SetHints(RpcCall<v1::SetHintsRequest, v1::SetHintsResponse>& call);
  void CloseSequence(RpcCall<v1::CloseSequenceRequest, v1::CloseSequenceResponse>& call);
  void PutTokenTexts(RpcCall<v1::PutTokenTextsRequest, v1::PutTokenTextsResponse>& call);

 private:
  // Has `verb(session)` tried under the lock until it is done or the deadline passes, and ends the
  // call: `verb` returns a status and sets *done; what is not done waits, without a thread, for
  // progress, or until call.trial().wake. Behind it the call may be gone.
  using Verb = absl::AnyInvocable<absl::Status(core::Session&, bool* done)>;
  void Run(PendingCall& call, Verb verb,
           absl::AnyInvocable<void(const absl::Status&)> at_end = nullptr);
  void Look(PendingCall& call);
  absl::Status Try(PendingCall& call, bool* done, uint64_t* seen);
  void End(PendingCall& call, const absl::Status& status);
  Instant DeadlineOf(const PendingCall& call) const;
  // The keys of a prefix, hashed without the lock; nothing where there is no prefix. Errors: the
  // caller's, kInvalidArgument naming field and bound.
  absl::StatusOr<std::optional<core::PrefixKeys>> KeysOf(const PendingCall& call, uint32_t model_id,
                                                         const v1::PrefixKey* prefix);
  // Likewise for the members of a lease.
  absl::StatusOr<core::PrefixKeys> LeaseKeysOf(const PendingCall& call,
                                               const std::vector<core::LeaseMember>& members,
                                               const v1::PrefixKey& prefix);

  SharedCore& shared_;
  const KvCacheServiceOptions options_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_KV_CACHE_SERVICE_H_
