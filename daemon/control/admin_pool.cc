// AdminService: the size of the host pool.
#include <algorithm>
#include <string>

#include "base/error.h"
#include "daemon/control/admin_service.h"
#include "daemon/control/status_convert.h"

namespace kvasir {

grpc::Status AdminService::SetPoolSize(grpc::ServerContext* context,
                                       const v1::SetPoolSizeRequest* request,
                                       v1::SetPoolSizeResponse* response) {
  const absl::StatusOr<Scope> scope = ScopeOf(*context);
  if (!scope.ok()) return ToGrpc(scope.status());
  const grpc::Status set =
      Audited(*scope, "resize", {{"pool_bytes", std::to_string(request->pool_bytes())}}, [&] {
        if (!scope->all) {
          return PermissionDenied("SetPoolSize is for administrators (admin.uids)");
        }
        return pool_size_.Set(request->pool_bytes(), [context] { return context->IsCancelled(); });
      });
  if (!set.ok()) return set;
  response->set_boot_epoch(boot_epoch_);
  response->set_asked_bytes(request->pool_bytes());
  uint64_t charged = 0;
  MutexLock lock(shared_.mutex);
  for (const core::TenantReport& tenant : shared_.core.TenantReports()) {
    charged += tenant.charged_bytes;
    if (tenant.charged_bytes == 0) continue;
    v1::PoolHolder* const holder = response->add_holders();
    holder->set_tenant(tenant.name);
    holder->mutable_host()->set_held_bytes(tenant.held_bytes);
    holder->mutable_host()->set_charged_bytes(tenant.charged_bytes);
    holder->mutable_host()->set_limit_bytes(tenant.limit_bytes);
    holder->set_sessions(tenant.sessions);
    holder->set_sequences(tenant.sequences);
  }
  response->set_reached_bytes(std::max(request->pool_bytes(), charged));
  if (charged <= request->pool_bytes()) response->clear_holders();
  return grpc::Status::OK;
}

}  // namespace kvasir
