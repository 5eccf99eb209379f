// AdminService: what operators ask of the daemon by gRPC. Administrators see all, tenants their
// own.
#ifndef KVASIR_DAEMON_CONTROL_ADMIN_SERVICE_H_
#define KVASIR_DAEMON_CONTROL_ADMIN_SERVICE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "daemon/control/audit_log.h"
#include "daemon/control/caller.h"
#include "daemon/metrics.h"
#include "daemon/pool_size.h"
#include "daemon/shared_core.h"
#include "daemon/store/tier_place.h"
#include "kvasir/v1/admin.grpc.pb.h"

namespace kvasir {

// Facts about the daemon's host that do not change while it runs.
struct HostReport {
  std::string memory_lock_mode;
  std::string huge_pages;
  int32_t numa_node = -1;
};

// Thread-safe. Everything given must outlive it.
class AdminService {
 public:
  AdminService(SharedCore& shared, PoolSize& pool_size, const CallerRegistry& callers,
               AuditLog& audit, const std::vector<TierPlace>& tiers, SnapshotFunction snapshot,
               HostReport host, uint64_t boot_epoch)
      : shared_(shared),
        pool_size_(pool_size),
        callers_(callers),
        audit_(audit),
        tiers_(tiers),
        snapshot_(std::move(snapshot)),
        host_(std::move(host)),
        boot_epoch_(boot_epoch) {}

  // What the caller may see: everything, or one tenant.
  struct Scope {
    bool all = false;
    std::string tenant;
    PeerCredentials peer;
    size_t slot = 0;
    bool Sees(const std::string& name) const { return all || name == tenant; }
  };
  // Errors: kPermissionDenied.
  absl::StatusOr<Scope> ScopeOf(const CallerRegistry::Caller& caller);

  // Every verb for who has this scope. Those with a context wait, and hold a thread meanwhile.
  grpc::Status GetStats(const Scope& scope, const v1::GetStatsRequest* request,
                        v1::GetStatsResponse* response);
  grpc::Status ListSequences(const Scope& scope, const v1::ListSequencesRequest* request,
                             v1::ListSequencesResponse* response);
  grpc::Status ListSnapshots(const Scope& scope, const v1::ListSnapshotsRequest* request,
                             v1::ListSnapshotsResponse* response);
  grpc::Status ListPrefixes(const Scope& scope, const v1::ListPrefixesRequest* request,
                            v1::ListPrefixesResponse* response);
  grpc::Status ListPrefixLookups(const Scope& scope, const v1::ListPrefixLookupsRequest* request,
                                 v1::ListPrefixLookupsResponse* response);
  grpc::Status DropPrefixes(const Scope& scope, const v1::DropPrefixesRequest* request,
                            v1::DropPrefixesResponse* response);
  grpc::Status SetTenantBudget(const Scope& scope, const v1::SetTenantBudgetRequest* request,
                               v1::SetTenantBudgetResponse* response);
  grpc::Status SetPoolSize(const Scope& scope, grpc::ServerContext* context,
                           const v1::SetPoolSizeRequest* request,
                           v1::SetPoolSizeResponse* response);
  grpc::Status DrainPrefixes(const Scope& scope, grpc::ServerContext* context,
                             const v1::DrainPrefixesRequest* request,
                             v1::DrainPrefixesResponse* response);
  grpc::Status ListTiers(const Scope& scope, const v1::ListTiersRequest* request,
                         v1::ListTiersResponse* response);
  grpc::Status WatchPrefixes(const Scope& scope, grpc::ServerContext* context,
                             const v1::WatchPrefixesRequest* request,
                             grpc::ServerWriter<v1::PrefixEvent>* writer);
  grpc::Status GetHitRateCurves(const Scope& scope, const v1::GetHitRateCurvesRequest* request,
                                v1::GetHitRateCurvesResponse* response);
  grpc::Status RecordTrace(const Scope& scope, grpc::ServerContext* context,
                           const v1::RecordTraceRequest* request,
                           grpc::ServerWriter<v1::TraceRecord>* writer);
  grpc::Status InspectSequence(const Scope& scope, const v1::InspectSequenceRequest* request,
                               v1::InspectSequenceResponse* response);
  grpc::Status ListPolicies(const Scope& scope, const v1::ListPoliciesRequest* request,
                            v1::ListPoliciesResponse* response);
  grpc::Status GetHost(const Scope& scope, const v1::GetHostRequest* request,
                       v1::GetHostResponse* response);

 private:
  // Runs an act that changes something, or refuses it, and writes down what came of it.
  grpc::Status Audited(const Scope& scope, std::string_view act,
                       std::vector<std::pair<std::string_view, std::string>> arguments,
                       const std::function<absl::Status()>& run);
  // Errors: kNotFound for a tenant that the scope does not see, TraceRecorder::Start()'s.
  absl::StatusOr<uint64_t> StartRecording(const Scope& scope, const std::string& tenant);
  // Errors: kNotFound, KvCore::SetBudgets()'s.
  absl::Status SetBudget(const v1::SetTenantBudgetRequest& request,
                         v1::SetTenantBudgetResponse* response);
  // Waits until every tier has what there was. Errors: kDeadlineExceeded, kCancelled, the tiers'.
  absl::Status Drain(const grpc::ServerContext& context, const v1::DrainPrefixesRequest& request,
                     v1::DrainPrefixesResponse* response);
  // Events from `number` on that the scope sees, at most a batch; advances `number`. False: the
  // daemon is stopping. Waits a little where there are none.
  bool TakeEvents(const Scope& scope, const std::string& tenant, uint64_t* number,
                  std::vector<v1::PrefixEvent>* events);

  SharedCore& shared_;
  PoolSize& pool_size_;
  const CallerRegistry& callers_;
  AuditLog& audit_;
  const std::vector<TierPlace>& tiers_;
  const SnapshotFunction snapshot_;
  const HostReport host_;
  const uint64_t boot_epoch_;
  Mutex watchers_mutex_;
  std::map<size_t, int> watchers_ ABSL_GUARDED_BY(watchers_mutex_);  // by slot
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_ADMIN_SERVICE_H_
