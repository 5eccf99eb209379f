// KvCacheService: the gRPC face of KvCore for engines. Converts, waits, and decides nothing.
#ifndef KVASIR_DAEMON_CONTROL_KV_CACHE_SERVICE_H_
#define KVASIR_DAEMON_CONTROL_KV_CACHE_SERVICE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "daemon/control/audit_log.h"
#include "daemon/control/call_slots.h"
#include "daemon/control/caller.h"
#include "daemon/shared_core.h"
#include "kvasir/v1/kv_cache.grpc.pb.h"

namespace kvasir {

struct KvCacheServiceOptions {
  uint64_t boot_epoch = 0;
  uint32_t rpc_deadline_max_ms = 60'000;  // no call waits longer, whatever its deadline says
  std::function<void()> extents_taken;    // the pool's stock may be low
  uint32_t load_wait_ms = 5'000;          // of an open, for a tier
  AuditLog* audit = nullptr;              // of refusals; must outlive the service
  CallSlots* calls = nullptr;             // must outlive the service
};

// Thread-safe. `shared` and `callers` must outlive it.
class KvCacheService final : public v1::KvCache::Service {
 public:
  KvCacheService(SharedCore& shared, const CallerRegistry& callers, KvCacheServiceOptions options)
      : shared_(shared), callers_(callers), options_(std::move(options)) {}

  grpc::Status RegisterModel(grpc::ServerContext* context, const v1::RegisterModelRequest* request,
                             v1::RegisterModelResponse* response) override;
  grpc::Status ProbeLayout(grpc::ServerContext* context, const v1::ProbeLayoutRequest* request,
                           v1::ProbeLayoutResponse* response) override;
  grpc::Status OpenSequence(grpc::ServerContext* context, const v1::OpenSequenceRequest* request,
                            v1::OpenSequenceResponse* response) override;
  grpc::Status Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                    v1::SyncResponse* response) override;
  grpc::Status Truncate(grpc::ServerContext* context, const v1::TruncateRequest* request,
                        v1::TruncateResponse* response) override;
  grpc::Status SelectRows(grpc::ServerContext* context, const v1::SelectRowsRequest* request,
                          v1::SelectRowsResponse* response) override;
  grpc::Status Retrieve(grpc::ServerContext* context, const v1::RetrieveRequest* request,
                        v1::RetrieveResponse* response) override;
  grpc::Status SaveSequence(grpc::ServerContext* context, const v1::SaveSequenceRequest* request,
                            v1::SaveSequenceResponse* response) override;
  grpc::Status MatchPrefix(grpc::ServerContext* context, const v1::MatchPrefixRequest* request,
                           v1::MatchPrefixResponse* response) override;
  grpc::Status PublishPrefix(grpc::ServerContext* context, const v1::PublishPrefixRequest* request,
                             v1::PublishPrefixResponse* response) override;
  grpc::Status LeasePrefix(grpc::ServerContext* context, const v1::LeasePrefixRequest* request,
                           v1::LeasePrefixResponse* response) override;
  grpc::Status ReleaseLease(grpc::ServerContext* context, const v1::ReleaseLeaseRequest* request,
                            v1::ReleaseLeaseResponse* response) override;
  grpc::Status DropSnapshot(grpc::ServerContext* context, const v1::DropSnapshotRequest* request,
                            v1::DropSnapshotResponse* response) override;
  grpc::Status SetHints(grpc::ServerContext* context, const v1::SetHintsRequest* request,
                        v1::SetHintsResponse* response) override;
  grpc::Status CloseSequence(grpc::ServerContext* context, const v1::CloseSequenceRequest* request,
                             v1::CloseSequenceResponse* response) override;
  grpc::Status PutTokenTexts(grpc::ServerContext* context, const v1::PutTokenTextsRequest* request,
                             v1::PutTokenTextsResponse* response) override;

 private:
  // Runs `verb(session)` under the lock until it is done or the deadline passes. `verb` returns a
  // status and sets *done; what is not done waits for progress, or until *wake, which it may
  // change.
  using Verb = std::function<absl::Status(core::Session&, bool* done)>;
  grpc::Status Run(const grpc::ServerContext& context, const Verb& verb,
                   const Instant* wake = nullptr);
  // The keys of a prefix, hashed without the lock; nothing where there is no prefix. Errors: the
  // caller's, kInvalidArgument naming field and bound.
  absl::StatusOr<std::optional<core::PrefixKeys>> KeysOf(const grpc::ServerContext& context,
                                                         uint32_t model_id,
                                                         const v1::PrefixKey* prefix);
  // Likewise for the members of a lease.
  absl::StatusOr<core::PrefixKeys> LeaseKeysOf(const grpc::ServerContext& context,
                                               const std::vector<core::LeaseMember>& members,
                                               const v1::PrefixKey& prefix);

  SharedCore& shared_;
  const CallerRegistry& callers_;
  const KvCacheServiceOptions options_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_KV_CACHE_SERVICE_H_
